#include "form_args.h"

#include <string>

#include "../abi.h"
#include "../support/error.h"

namespace p2pdma::ring {

namespace {

// A ring's rows keep which it is in a byte.
constexpr uint32_t kMaxOperations = 255;

// With 16 bits of slot, an id stays within its word.
constexpr uint32_t kMaxIdShift = 16;

}  // namespace

void Fields::Fail(const char* name, const char* what) const {
  throw CodedError(object_.Env(), "ERR_OUT_OF_RANGE", std::string(name) + " must be " + what, name);
}

uint32_t Fields::Uint(const char* name, uint32_t max) const {
  const Napi::Value value = object_.Get(name);
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= max) ||
      static_cast<double>(static_cast<uint32_t>(number)) != number) {
    Fail(name, ("a whole number up to " + std::to_string(max)).c_str());
  }
  return static_cast<uint32_t>(number);
}

uint32_t Fields::EvenWord(const char* name, uint32_t max) const {
  const uint32_t word = Uint(name, max);
  if (word % 2 != 0) Fail(name, "even");
  return word;
}

uint32_t Fields::PowerOfTwo(const char* name, uint32_t missing) const {
  const uint32_t number = Uint(name, UINT32_MAX, missing);
  if (number == 0 || (number & (number - 1)) != 0) Fail(name, "a power of two");
  return number;
}

Fields ObjectArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsObject()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be an object",
                     name);
  }
  return Fields(info[index]);
}

Form FormArg(const Napi::CallbackInfo& info, size_t index, bool completes_apart) {
  const Fields fields = ObjectArg(info, index, "form");
  Form form;
  const Napi::Value words = fields.Get("words");
  if (!words.IsTypedArray() || words.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", "words must be a Uint32Array", "words");
  }
  const auto array = words.As<Napi::Uint32Array>();
  const size_t length = array.ElementLength();
  if (length < 2 || length > kMaxWords || length % 2 != 0) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE", "a descriptor has 2, 4 to 16 words", "words");
  }
  form.words.assign(array.Data(), array.Data() + length);
  const auto last = static_cast<uint32_t>(length - 1);
  form.address_word = fields.EvenWord("addressWord", last - 1);
  form.length_word = fields.Uint("lengthWord", last, kNoWord);
  form.block_bytes = fields.PowerOfTwo("blockBytes", 1);
  form.length_less = fields.Uint("lengthLess", 1, 0);
  if (fields.Has("storageWord")) form.storage_word = fields.EvenWord("storageWord", last - 1);
  if (fields.Has("secondPageWord")) {
    form.second_page_word = fields.EvenWord("secondPageWord", last - 1);
    form.page_bytes = fields.PowerOfTwo("pageBytes", 0);
  }
  form.operation_word = fields.Uint("operationWord", last, 0);
  form.id_word = fields.Uint("idWord", last, kNoWord);
  form.id_shift = fields.Uint("idShift", kMaxIdShift, 0);
  if (fields.Has("lastBits")) {
    form.last_word = fields.Uint("lastWord", last);
    form.last_bits = fields.Uint("lastBits");
  }
  if (completes_apart) return form;
  form.done_word = fields.Uint("doneWord", last);
  form.done_mask = fields.Uint("doneMask");
  form.good_mask = fields.Uint("goodMask");
  form.good_value = fields.Uint("goodValue");
  form.result_word = fields.Uint("resultWord", last);
  form.result_mask = fields.Uint("resultMask");
  return form;
}

std::vector<Operation> OperationsArg(const Napi::CallbackInfo& info, size_t index) {
  const Napi::Env env = info.Env();
  if (!info[index].IsArray()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "operations must be an array", "operations");
  }
  const auto array = info[index].As<Napi::Array>();
  const uint32_t count = array.Length();
  if (count == 0 || count > kMaxOperations) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "a queue has 1 to 255 operations", "operations");
  }
  std::vector<Operation> operations;
  for (uint32_t i = 0; i < count; ++i) {
    const Napi::Value each = array.Get(i);
    if (!each.IsObject()) {
      throw CodedError(env, "ERR_INVALID_ARG_TYPE", "operations must be objects", "operations");
    }
    const Fields fields(each);
    Operation operation;
    operation.op = static_cast<uint8_t>(fields.Uint("op", abi::op::kReceive));
    operation.storage = static_cast<StorageSide>(fields.Uint("storage", 2, 0));
    // A descriptor has one address of ours.
    const bool is_copy = operation.op == abi::op::kCopy;
    const bool is_one_sided = operation.op == abi::op::kSend || operation.op == abi::op::kReceive;
    const bool has_storage = operation.storage != StorageSide::kNone;
    if (has_storage ? !is_copy : !is_one_sided) {
      throw CodedError(env, "ERR_OUT_OF_RANGE",
                       "op must be SEND, RECEIVE, or a COPY into or out of the storage", "op");
    }
    operation.code = fields.Uint("code", UINT32_MAX, 0);
    operation.min_length = fields.Uint("minLength");
    operation.max_length = fields.Uint("maxLength");
    operation.alignment = fields.PowerOfTwo("alignment", 1);
    operations.push_back(operation);
  }
  return operations;
}

CompletionForm CompletionFormOf(const Fields& fields, uint32_t max_entries) {
  CompletionForm form;
  form.entries = fields.Uint("entries", max_entries);
  form.words = fields.PowerOfTwo("words", 0);
  if (form.words > kMaxWords) fields.Uint("words", kMaxWords);
  const uint32_t last = form.words - 1;
  form.phase_word = fields.Uint("phaseWord", last);
  form.phase_mask = fields.PowerOfTwo("phaseMask", 0);
  form.id_word = fields.Uint("idWord", last);
  form.id_mask = fields.Uint("idMask");
  form.id_shift = fields.Uint("idShift", 31);
  form.good_word = fields.Uint("goodWord", last);
  form.good_mask = fields.Uint("goodMask");
  form.good_value = fields.Uint("goodValue");
  return form;
}

}  // namespace p2pdma::ring
