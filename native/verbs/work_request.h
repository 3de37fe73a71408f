// Rows of a batch as libibverbs' work requests. Addresses and keys are taken as
// they stand; who resolves them from attachments does so before.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>

#include "columns.h"
#include "objects.h"

namespace p2pdma::verbs {

// What is wrong with a row.
struct Defect {
  const char* column = nullptr;
  const char* what = nullptr;
};

// Adds row `row`; false, and the chain as it was, where it is malformed.
bool AddSend(const SendColumns& columns, uint32_t row, QueuePair& pair, SendChain* chain,
             Defect* defect);
// The same of a receive, into one that the caller has.
bool ReadReceive(const ReceiveColumns& columns, uint32_t row, ibv_recv_wr* request, ibv_sge* range,
                 Defect* defect);

}  // namespace p2pdma::verbs
