// A ring as JavaScript has it. What is called for each batch takes and returns
// its numbers in a small shared array, the doorbell.
#include "js.h"

#include <memory>
#include <string>
#include <utility>

#include "../abi.h"
#include "../mapping.h"
#include "../queue/table_args.h"
#include "../support/args.h"
#include "../support/column_args.h"
#include "../support/error.h"
#include "../support/function.h"
#include "../support/mmio.h"
#include "ring.h"

namespace p2pdma {

namespace ring {
namespace {

constexpr uint32_t kMaxEntries = 1 << 16;
constexpr uint32_t kMaxWords = 16;

using namespace abi::ring_bell;

struct JsRing {
  std::unique_ptr<Ring> core;  // null when closed
  std::shared_ptr<MappedRange> registers;
  uint64_t tail = 0;
  BatchColumns batch;
  CompletionColumns completions;
  uint32_t* bell = nullptr;
  bool usable() const { return core != nullptr && core->usable(); }
};
using RingPtr = std::shared_ptr<JsRing>;

void Post(JsRing& ring) {
  uint32_t* const bell = ring.bell;
  bell[kAccepted] = 0;
  bell[kDefect] = 0;
  if (!ring.usable()) return;
  Ring& core = *ring.core;
  const uint32_t pending = bell[kPending];
  const uint32_t first = bell[kFirst];
  uint32_t count = bell[kCount];
  if (pending >= core.entries() || first > ring.batch.capacity) return;
  // One slot stays empty, by which the device knows full from empty.
  if (count > core.entries() - 1 - pending) count = core.entries() - 1 - pending;
  if (count > ring.batch.capacity - first) count = ring.batch.capacity - first;
  const uint32_t slot = bell[kHead] + pending;
  const PostResult result = core.Post(ring.batch, first, count, slot);
  bell[kAccepted] = result.accepted;
  bell[kDefect] = result.defect;
  bell[kPending] = pending + result.accepted;
  if (result.accepted != 0 && bell[kTell] != 0 && !ring.registers->retired) {
    BeforeRegisterStore();
    *reinterpret_cast<volatile uint32_t*>(ring.registers->data + ring.tail) =
        (slot + result.accepted) & (core.entries() - 1);
  }
}

void Reap(JsRing& ring) {
  uint32_t* const bell = ring.bell;
  bell[kTaken] = 0;
  bell[kBad] = 0;
  if (!ring.usable()) return;
  const Ring& core = *ring.core;
  const uint32_t pending = bell[kPending];
  if (pending >= core.entries()) return;
  const uint32_t room = ring.completions.capacity;
  const uint32_t taken = core.Done(bell[kHead], pending < room ? pending : room);
  bell[kBad] = core.Complete(bell[kHead], taken, bell[kEpoch], ring.completions);
  bell[kTaken] = taken;
  bell[kPending] = pending - taken;
  bell[kHead] = (bell[kHead] + taken) & (core.entries() - 1);
}

void Done(JsRing& ring) {
  const uint32_t pending = ring.bell[kPending];
  const bool usable = ring.usable() && pending < ring.core->entries();
  ring.bell[kDone] = usable ? ring.core->Done(ring.bell[kHead], pending) : 0;
}

class Fields {
 public:
  explicit Fields(const Napi::Value& value) : object_(value.As<Napi::Object>()) {}

  uint32_t Uint(const char* name, uint32_t max = UINT32_MAX) const {
    const Napi::Value value = object_.Get(name);
    const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
    if (!(number >= 0 && number <= max) ||
        static_cast<double>(static_cast<uint32_t>(number)) != number) {
      throw CodedError(object_.Env(), "ERR_OUT_OF_RANGE",
                       std::string(name) + " must be a whole number up to " + std::to_string(max),
                       name);
    }
    return static_cast<uint32_t>(number);
  }

  Napi::Value Get(const char* name) const { return object_.Get(name); }
  bool Has(const char* name) const { return !object_.Get(name).IsUndefined(); }

 private:
  const Napi::Object object_;
};

Fields ObjectArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsObject()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be an object",
                     name);
  }
  return Fields(info[index]);
}

Form FormArg(const Napi::CallbackInfo& info, size_t index) {
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
  form.address_word = fields.Uint("addressWord", last - 1);
  if (form.address_word % 2 != 0) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE", "addressWord must be even", "addressWord");
  }
  form.has_length = fields.Has("lengthWord");
  if (form.has_length) form.length_word = fields.Uint("lengthWord", last);
  if (fields.Has("lastBits")) {
    form.last_word = fields.Uint("lastWord", last);
    form.last_bits = fields.Uint("lastBits");
  }
  form.done_word = fields.Uint("doneWord", last);
  form.done_mask = fields.Uint("doneMask");
  form.good_mask = fields.Uint("goodMask");
  form.good_value = fields.Uint("goodValue");
  form.result_word = fields.Uint("resultWord", last);
  form.result_mask = fields.Uint("resultMask");
  return form;
}

Limits LimitsArg(const Napi::CallbackInfo& info, size_t index) {
  const Fields fields = ObjectArg(info, index, "limits");
  Limits limits;
  limits.op = static_cast<uint8_t>(fields.Uint("op", abi::op::kReceive));
  if (limits.op != abi::op::kSend && limits.op != abi::op::kReceive) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE", "op must be SEND or RECEIVE", "op");
  }
  limits.min_length = fields.Uint("minLength");
  limits.max_length = fields.Uint("maxLength");
  return limits;
}

// useTable(capacity, ids, states, access, iovas, sizes, last)
void UseTable(const Napi::CallbackInfo& info, JsRing& ring) {
  const queue::TableColumns columns = queue::TableArgs(info);
  const Column<uint32_t> last(
      ColumnArg(info, 6, "last", napi_uint32_array, size_t{2} * columns.capacity));
  if (ring.core == nullptr) return;
  ring.core->table = columns;
  ring.core->uses.capacity = columns.capacity;
  ring.core->uses.last = last;
}

// openRing(descriptors, entries, registers, tail, form, limits, cookies, offsets, lengths, ids,
//          doorbell, untold)
Napi::Value OpenRing(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<MappedRange> memory = UnwrapMapping(info[0]);
  const uint32_t entries = Uint32Arg(info, 1, "entries", kMaxEntries);
  if (entries < 2 || (entries & (entries - 1)) != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "entries must be a power of two", "entries");
  }
  const auto ring = std::make_shared<JsRing>();
  ring->registers = UnwrapMapping(info[2]);
  ring->tail = UintArg(info, 3, "tail");
  if ((ring->tail & 3) != 0 || !ring->registers->Contains(ring->tail, 4) ||
      !ring->registers->writable) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "tail must be a register that can be written",
                     "tail");
  }
  Form form = FormArg(info, 4);
  if (!memory->Contains(0, uint64_t{entries} * form.words.size() * 4) || !memory->writable) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "entries reach beyond the memory", "entries");
  }
  RowColumns rows;
  rows.cookies = Column<double>(ColumnArg(info, 6, "cookies", napi_float64_array, entries));
  rows.offsets = Column<double>(ColumnArg(info, 7, "offsets", napi_float64_array, entries));
  rows.lengths = Column<double>(ColumnArg(info, 8, "lengths", napi_float64_array, entries));
  rows.ids = Column<uint32_t>(ColumnArg(info, 9, "ids", napi_uint32_array, entries));
  ring->bell = static_cast<uint32_t*>(ColumnArg(info, 10, "doorbell", napi_uint32_array, kLength));
  ring->core = std::make_unique<Ring>(std::move(memory), 0, entries, std::move(form),
                                      LimitsArg(info, 5), rows);
  ring->core->uses.untold = {
      Column<uint32_t>(ColumnArg(info, 11, "untold", napi_uint32_array, 1 + size_t{entries})),
      entries};
  const Napi::Object object = Napi::Object::New(env);
  SetFast<Post>(env, object, "post", ring);
  SetFast<Reap>(env, object, "reap", ring);
  SetFast<Done>(env, object, "done", ring);
  Set(object, "useBatch", [ring](const Napi::CallbackInfo& i) { ring->batch = BatchArgs(i); });
  Set(object, "useCompletions",
      [ring](const Napi::CallbackInfo& i) { ring->completions = CompletionArgs(i); });
  Set(object, "useTable", [ring](const Napi::CallbackInfo& i) { UseTable(i, *ring); });
  Set(object, "refill", [ring](const Napi::CallbackInfo&) {
    const uint32_t pending = ring->bell[kPending];
    if (ring->usable() && pending < ring->core->entries()) {
      ring->core->Refill(ring->bell[kHead], pending);
    }
  });
  Set(object, "close", [ring](const Napi::CallbackInfo&) { ring->core.reset(); });
  return object;
}

}  // namespace
}  // namespace ring

void InitRing(Napi::Env, Napi::Object exports) { Export<ring::OpenRing>(exports, "openRing"); }

}  // namespace p2pdma
