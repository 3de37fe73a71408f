#include "columns.h"

#include <memory>
#include <string>

#include "support/args.h"
#include "support/column_args.h"
#include "support/function.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

namespace {

constexpr napi_type_tag kSendTag = {0x7b1e0c94d25f4a68, 0xa2d46f0b8c3e7915};
constexpr napi_type_tag kReceiveTag = {0x7b1e0c94d25f4a69, 0xa2d46f0b8c3e7915};
constexpr napi_type_tag kCompletionTag = {0x7b1e0c94d25f4a6a, 0xa2d46f0b8c3e7915};

// A table with its memory: the first column keeps the SharedArrayBuffer.
template <typename T>
struct Table {
  T columns;
  Napi::Reference<Napi::Value> memory;
};

// Reads the columns from the arguments, one after the other.
class Reader {
 public:
  explicit Reader(const Napi::CallbackInfo& info)
      : info_(info), capacity_(Uint32Arg(info, 0, "capacity", 1 << 20)) {}

  uint32_t capacity() const { return capacity_; }
  Column<double> Wide(const char* name) { return Column<double>(Next(name, napi_float64_array)); }
  Column<uint32_t> Word(const char* name) {
    return Column<uint32_t>(Next(name, napi_uint32_array));
  }
  Column<uint8_t> Byte(const char* name) { return Column<uint8_t>(Next(name, napi_uint8_array)); }

 private:
  void* Next(const char* name, napi_typedarray_type wanted) {
    return ColumnArg(info_, ++at_, name, wanted, capacity_, &memory_);
  }

  const Napi::CallbackInfo& info_;
  const uint32_t capacity_;
  size_t at_ = 0;
  napi_value memory_ = nullptr;
};

template <typename T>
Napi::Value Finish(const Napi::CallbackInfo& info, const T& columns, const napi_type_tag& tag) {
  const Napi::Env env = info.Env();
  auto table =
      std::make_unique<Table<T>>(Table<T>{columns, Napi::Reference<Napi::Value>::New(info[1], 1)});
  auto external = Napi::External<Table<T>>::New(env, table.get(),
                                                [](Napi::Env, Table<T>* gone) { delete gone; });
  static_cast<void>(table.release());
  external.TypeTag(&tag);
  return external;
}

template <typename T>
const T& Arg(const Napi::Value& value, const char* name, const napi_type_tag& tag) {
  if (!value.IsExternal() || !value.As<Napi::External<Table<T>>>().CheckTypeTag(&tag)) {
    throw CodedError(value.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be columns",
                     name);
  }
  return value.As<Napi::External<Table<T>>>().Data()->columns;
}

// verbsSendColumns(capacity, wrId, ..., flags)
Napi::Value MakeSend(const Napi::CallbackInfo& info) {
  Reader reader(info);
  SendColumns columns;
  columns.capacity = reader.capacity();
  columns.wr_id = reader.Wide("wrId");
  columns.address = reader.Wide("address");
  columns.length = reader.Wide("length");
  columns.remote_address = reader.Wide("remoteAddress");
  columns.compare_add = reader.Wide("compareAdd");
  columns.swap = reader.Wide("swap");
  columns.lkey = reader.Word("lkey");
  columns.rkey = reader.Word("rkey");
  columns.immediate = reader.Word("immediate");
  columns.address_handle = reader.Word("addressHandle");
  columns.remote_qpn = reader.Word("remoteQpn");
  columns.remote_qkey = reader.Word("remoteQkey");
  columns.opcode = reader.Byte("opcode");
  columns.flags = reader.Byte("flags");
  return Finish(info, columns, kSendTag);
}

// verbsReceiveColumns(capacity, wrId, address, length, lkey)
Napi::Value MakeReceive(const Napi::CallbackInfo& info) {
  Reader reader(info);
  ReceiveColumns columns;
  columns.capacity = reader.capacity();
  columns.wr_id = reader.Wide("wrId");
  columns.address = reader.Wide("address");
  columns.length = reader.Wide("length");
  columns.lkey = reader.Word("lkey");
  return Finish(info, columns, kReceiveTag);
}

// verbsCompletionColumns(capacity, wrId, ..., flags)
Napi::Value MakeCompletion(const Napi::CallbackInfo& info) {
  Reader reader(info);
  CompletionColumns columns;
  columns.capacity = reader.capacity();
  columns.wr_id = reader.Wide("wrId");
  columns.status = reader.Word("status");
  columns.opcode = reader.Word("opcode");
  columns.byte_length = reader.Word("byteLength");
  columns.immediate = reader.Word("immediate");
  columns.qp_number = reader.Word("qpNumber");
  columns.source_qp = reader.Word("sourceQp");
  columns.vendor_error = reader.Word("vendorError");
  columns.flags = reader.Word("flags");
  return Finish(info, columns, kCompletionTag);
}

}  // namespace

const SendColumns& SendColumnsArg(const Napi::Value& value) {
  return Arg<SendColumns>(value, "batch", kSendTag);
}

const ReceiveColumns& ReceiveColumnsArg(const Napi::Value& value) {
  return Arg<ReceiveColumns>(value, "batch", kReceiveTag);
}

const CompletionColumns& CompletionColumnsArg(const Napi::Value& value) {
  return Arg<CompletionColumns>(value, "completions", kCompletionTag);
}

void InitColumns(Napi::Env, Napi::Object exports) {
  Export<MakeSend>(exports, "verbsSendColumns");
  Export<MakeReceive>(exports, "verbsReceiveColumns");
  Export<MakeCompletion>(exports, "verbsCompletionColumns");
}

}  // namespace p2pdma::verbs
