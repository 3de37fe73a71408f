// The columns of a SendBatch, a ReceiveBatch and WorkCompletions
// (lib/kernel/verbs/columns.ts): raw pointers into one SharedArrayBuffer,
// which is never detached. Another JavaScript thread may write while we read,
// so each value is read once.
#pragma once

#include <napi.h>

#include <cstdint>

#include "support/columns.h"

namespace p2pdma::verbs {

struct SendColumns {
  uint32_t capacity = 0;
  Column<double> wr_id;
  Column<double> address;
  Column<double> length;
  Column<double> remote_address;
  Column<double> compare_add;
  Column<double> swap;
  Column<uint32_t> lkey;
  Column<uint32_t> rkey;
  Column<uint32_t> immediate;
  Column<uint32_t> address_handle;
  Column<uint32_t> remote_qpn;
  Column<uint32_t> remote_qkey;
  Column<uint8_t> opcode;
  Column<uint8_t> flags;
};

struct ReceiveColumns {
  uint32_t capacity = 0;
  Column<double> wr_id;
  Column<double> address;
  Column<double> length;
  Column<uint32_t> lkey;
};

struct CompletionColumns {
  uint32_t capacity = 0;
  Column<double> wr_id;
  Column<uint32_t> status;
  Column<uint32_t> opcode;
  Column<uint32_t> byte_length;
  Column<uint32_t> immediate;
  Column<uint32_t> qp_number;
  Column<uint32_t> source_qp;
  Column<uint32_t> vendor_error;
  Column<uint32_t> flags;
};

// Throw ERR_INVALID_ARG_TYPE for anything else. The pointers are good for as
// long as the JavaScript object is there, which an argument of the call is.
const SendColumns& SendColumnsArg(const Napi::Value& value);
const ReceiveColumns& ReceiveColumnsArg(const Napi::Value& value);
const CompletionColumns& CompletionColumnsArg(const Napi::Value& value);

}  // namespace p2pdma::verbs
