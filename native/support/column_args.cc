#include "support/column_args.h"

#include <string>

#include "support/args.h"
#include "support/error.h"

namespace p2pdma {

namespace {

// Whether a column lies in the memory of those before it, which the first one chooses.
bool InOneMemory(napi_env env, napi_value own, napi_value* memory) {
  if (memory == nullptr) return true;
  if (*memory == nullptr) *memory = own;
  bool same = false;
  return napi_strict_equals(env, own, *memory, &same) == napi_ok && same;
}

}  // namespace

void* ColumnOf(const Napi::Value& value, const char* name, napi_typedarray_type wanted,
               size_t capacity, napi_value* memory) {
  const Napi::Env env = value.Env();
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  napi_value own = nullptr;
  bool detachable = true;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(env, value, &type, &length, &data, &own, nullptr) != napi_ok ||
      type != wanted || napi_is_arraybuffer(env, own, &detachable) != napi_ok || detachable) {
    throw CodedError(
        env, "ERR_INVALID_ARG_TYPE",
        std::string(name) + " must be a typed array of the column's type over shared memory", name);
  }
  if (length < capacity || data == nullptr) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", std::string(name) + " is too short", name);
  }
  if (!InOneMemory(env, own, memory)) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", std::string(name) + " is over memory of its own",
                     name);
  }
  return data;
}

BatchColumns BatchArgs(const Napi::CallbackInfo& info) {
  BatchColumns columns;
  columns.capacity = Uint32Arg(info, 0, "capacity");
  const auto wide = [&](size_t index, const char* name) {
    return Column<double>(ColumnArg(info, index, name, napi_float64_array, columns.capacity));
  };
  columns.source_offset = wide(1, "sourceOffset");
  columns.target_offset = wide(2, "targetOffset");
  columns.length = wide(3, "length");
  columns.operand = wide(4, "operand");
  columns.cookie = wide(5, "cookie");
  columns.source =
      Column<uint32_t>(ColumnArg(info, 6, "source", napi_uint32_array, columns.capacity));
  columns.target =
      Column<uint32_t>(ColumnArg(info, 7, "target", napi_uint32_array, columns.capacity));
  columns.op = Column<uint8_t>(ColumnArg(info, 8, "op", napi_uint8_array, columns.capacity));
  return columns;
}

CompletionColumns CompletionArgs(const Napi::CallbackInfo& info) {
  CompletionColumns columns;
  columns.capacity = Uint32Arg(info, 0, "capacity");
  columns.cookie =
      Column<double>(ColumnArg(info, 1, "cookie", napi_float64_array, columns.capacity));
  columns.result =
      Column<double>(ColumnArg(info, 2, "result", napi_float64_array, columns.capacity));
  columns.status =
      Column<uint32_t>(ColumnArg(info, 3, "status", napi_uint32_array, columns.capacity));
  columns.epoch =
      Column<uint32_t>(ColumnArg(info, 4, "epoch", napi_uint32_array, columns.capacity));
  return columns;
}

}  // namespace p2pdma
