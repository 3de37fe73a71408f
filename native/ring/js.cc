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
#include "form_args.h"
#include "ring.h"

namespace p2pdma {

namespace ring {
namespace {

constexpr uint32_t kMaxEntries = 1 << 16;

using namespace abi::ring_bell;

struct JsRing {
  std::unique_ptr<Ring> core;  // null when closed
  std::shared_ptr<MappedRange> registers;
  uint64_t tail = 0;
  // Of completions in a ring of their own: takes the next entry that is read.
  uint64_t head = 0;
  BatchColumns batch;
  CompletionColumns completions;
  uint32_t* bell = nullptr;
  bool usable() const { return core != nullptr && core->usable(); }
};
using RingPtr = std::shared_ptr<JsRing>;

void Tell(const JsRing& ring, uint64_t offset, uint32_t value) {
  if (ring.bell[kTell] == 0 || ring.registers->retired) return;
  BeforeRegisterStore();
  *reinterpret_cast<volatile uint32_t*>(ring.registers->data + offset) = value;
}

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
  if (result.accepted != 0) {
    Tell(ring, ring.tail, (slot + result.accepted) & (core.entries() - 1));
  }
}

// How many completions of `pending` descriptors can be taken. Those in a ring of their own are
// taken off it, so that the device has room.
uint32_t CountDone(JsRing& ring, uint32_t pending) {
  Ring& core = *ring.core;
  if (core.completions() == nullptr) return core.Done(ring.bell[kHead], pending);
  if (core.Poll(ring.bell[kHead], pending)) Tell(ring, ring.head, core.completions()->next());
  ring.bell[kUnmatched] = core.unmatched();
  return core.finished();
}

void Reap(JsRing& ring) {
  uint32_t* const bell = ring.bell;
  bell[kTaken] = 0;
  bell[kBad] = 0;
  if (!ring.usable()) return;
  Ring& core = *ring.core;
  const uint32_t pending = bell[kPending];
  if (pending >= core.entries()) return;
  const uint32_t room = ring.completions.capacity;
  uint32_t past = 0;
  if (core.completions() == nullptr) {
    past = bell[kTaken] = core.Done(bell[kHead], pending < room ? pending : room);
    bell[kBad] = core.Complete(bell[kHead], past, bell[kEpoch], ring.completions);
  } else {
    const uint32_t done = CountDone(ring, pending);
    const uint32_t taken = done < room ? done : room;
    bell[kBad] = core.Give(taken, bell[kEpoch], ring.completions);
    bell[kTaken] = taken;
    past = core.Past(bell[kHead], pending);
    const uint32_t gaps = bell[kGaps] + taken;
    bell[kGaps] = gaps < past ? 0 : gaps - past;
  }
  bell[kPending] = pending - past;
  bell[kHead] = (bell[kHead] + past) & (core.entries() - 1);
}

void Done(JsRing& ring) {
  const uint32_t pending = ring.bell[kPending];
  const bool usable = ring.usable() && pending < ring.core->entries();
  ring.bell[kDone] = usable ? CountDone(ring, pending) : 0;
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

void CheckRegister(Napi::Env env, const MappedRange& registers, uint64_t offset, const char* name) {
  if ((offset & 3) == 0 && registers.Contains(offset, 4) && registers.writable) return;
  throw CodedError(env, "ERR_OUT_OF_RANGE",
                   std::string(name) + " must be a register that can be written", name);
}

void CheckRoom(Napi::Env env, const MappedRange& memory, uint64_t entries, size_t words) {
  if (memory.Contains(0, entries * words * 4) && memory.writable) return;
  throw CodedError(env, "ERR_OUT_OF_RANGE", "entries reach beyond the memory", "entries");
}

// Undefined: they are in the descriptors.
std::unique_ptr<CompletionQueue> CompletionsArg(const Napi::CallbackInfo& info, size_t index,
                                                uint32_t entries, JsRing& ring) {
  if (info[index].IsUndefined()) return nullptr;
  const Fields fields = ObjectArg(info, index, "completions");
  const CompletionForm form = CompletionFormOf(fields, kMaxEntries);
  // One for each descriptor that the device can have, and one that stays empty.
  if (form.entries < entries) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE", "there are fewer completions than descriptors",
                     "entries");
  }
  std::shared_ptr<MappedRange> memory = UnwrapMapping(fields.Get("memory"));
  CheckRoom(info.Env(), *memory, form.entries, form.words);
  ring.head = fields.Uint("head");
  CheckRegister(info.Env(), *ring.registers, ring.head, "head");
  return std::make_unique<CompletionQueue>(std::move(memory), form);
}

// openRing(descriptors, entries, registers, tail, form, operations, completions, cookies, offsets,
//          lengths, ids, places, kinds, stages, doorbell, untold)
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
  CheckRegister(env, *ring->registers, ring->tail, "tail");
  std::unique_ptr<CompletionQueue> completions = CompletionsArg(info, 6, entries, *ring);
  Form form = FormArg(info, 4, completions != nullptr);
  CheckRoom(env, *memory, entries, form.words.size());
  RowColumns rows;
  rows.cookies = Column<double>(ColumnArg(info, 7, "cookies", napi_float64_array, entries));
  rows.offsets = Column<double>(ColumnArg(info, 8, "offsets", napi_float64_array, entries));
  rows.lengths = Column<double>(ColumnArg(info, 9, "lengths", napi_float64_array, entries));
  rows.ids = Column<uint32_t>(ColumnArg(info, 10, "ids", napi_uint32_array, entries));
  rows.places = Column<double>(ColumnArg(info, 11, "places", napi_float64_array, entries));
  rows.kinds = Column<uint8_t>(ColumnArg(info, 12, "kinds", napi_uint8_array, entries));
  rows.stages = Column<uint8_t>(ColumnArg(info, 13, "stages", napi_uint8_array, entries));
  ring->bell = static_cast<uint32_t*>(ColumnArg(info, 14, "doorbell", napi_uint32_array, kLength));
  const size_t most_untold = 2 * size_t{entries};
  const Column<uint32_t> untold(ColumnArg(info, 15, "untold", napi_uint32_array, 1 + most_untold));
  ring->core = std::make_unique<Ring>(std::move(memory), entries, std::move(form),
                                      OperationsArg(info, 5), std::move(completions), rows);
  ring->core->uses.untold = {untold, static_cast<uint32_t>(most_untold)};
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
  Set(object, "rewind", [ring](const Napi::CallbackInfo&) {
    ring->bell[kGaps] = 0;
    if (ring->core != nullptr) ring->core->Rewind();
  });
  Set(object, "close", [ring](const Napi::CallbackInfo&) { ring->core.reset(); });
  return object;
}

}  // namespace
}  // namespace ring

void InitRing(Napi::Env, Napi::Object exports) { Export<ring::OpenRing>(exports, "openRing"); }

}  // namespace p2pdma
