// The work queues over a fake provider of libibverbs, which answers as no good one
// does: it refuses without saying where, or points outside the chain, and completes
// what was never posted. A real provider does so only where its device fails.
// Built and run by test/unit/verbs-posting.test.ts, with AddressSanitizer and UBSan.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "verbs/rows/queues.h"
#include "verbs/taken.h"

using p2pdma::BatchColumns;
using p2pdma::Column;
using p2pdma::MappedRange;
using namespace p2pdma::verbs;
using namespace p2pdma::verbs::work;

#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) {                                            \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      std::exit(1);                                                \
    }                                                              \
  } while (false)

namespace {

enum class BadAt { kNull, kOutside, kBefore, kMisaligned, kSecond };
struct {
  int error = 0;
  BadAt bad = BadAt::kNull;
  std::vector<ibv_wc> completions;
  // What ibv_poll_cq says it found; 0: as many as there are.
  int claims = 0;
  std::vector<uint64_t> ids;
  std::vector<uint64_t> receive_ids;
} fake;

template <typename Request>
int FakePost(Request* chain, Request** bad, std::vector<uint64_t>* ids) {
  if (fake.error == 0) {
    for (Request* each = chain; each != nullptr; each = each->next) ids->push_back(each->wr_id);
    return 0;
  }
  const auto at = reinterpret_cast<uintptr_t>(chain);
  static Request outside;
  switch (fake.bad) {
    case BadAt::kNull:
      *bad = nullptr;
      break;
    case BadAt::kOutside:
      *bad = &outside;
      break;
    case BadAt::kBefore:
      *bad = reinterpret_cast<Request*>(at - sizeof(Request));
      break;
    case BadAt::kMisaligned:
      *bad = reinterpret_cast<Request*>(at + 8);
      break;
    case BadAt::kSecond:
      *bad = chain->next;
      ids->push_back(chain->wr_id);
      break;
  }
  return fake.error;
}

int FakePostSend(ibv_qp*, ibv_send_wr* chain, ibv_send_wr** bad) {
  return FakePost(chain, bad, &fake.ids);
}
int FakePostReceive(ibv_qp*, ibv_recv_wr* chain, ibv_recv_wr** bad) {
  return FakePost(chain, bad, &fake.receive_ids);
}
int FakePoll(ibv_cq*, int room, ibv_wc* out) {
  int count = 0;
  while (count < room && !fake.completions.empty()) {
    out[count++] = fake.completions.front();
    fake.completions.erase(fake.completions.begin());
  }
  return count != 0 && fake.claims != 0 ? fake.claims : count;
}

}  // namespace

namespace p2pdma::verbs {
// For the objects' ends.
IbvCalls ibv = [] {
  IbvCalls calls;
  calls.destroy_qp = [](ibv_qp*) { return 0; };
  calls.destroy_cq = [](ibv_cq*) { return 0; };
  calls.dealloc_pd = [](ibv_pd*) { return 0; };
  calls.close_device = [](ibv_context*) { return 0; };
  calls.get_cq_event = [](ibv_comp_channel*, ibv_cq**, void**) { return -1; };
  calls.ack_cq_events = [](ibv_cq*, unsigned) {};
  return calls;
}();
uint32_t FindDriverId(const ibv_context*) { return 0; }
}  // namespace p2pdma::verbs

namespace {

constexpr uint32_t kDepth = 8;

// What JavaScript has of a channel.
struct Rig {
  std::vector<double> wide[32];
  std::vector<uint32_t> words[16];
  std::vector<uint8_t> bytes[16];
  uint32_t used[3] = {};
  Column<double> Wide(size_t length = kDepth) {
    auto& memory = wide[used[0]++];
    memory.assign(length, 0);
    return Column<double>(memory.data());
  }
  Column<uint32_t> Word(size_t length = kDepth) {
    auto& memory = words[used[1]++];
    memory.assign(length, 0);
    return Column<uint32_t>(memory.data());
  }
  Column<uint8_t> Byte() {
    auto& memory = bytes[used[2]++];
    memory.assign(kDepth, 0);
    return Column<uint8_t>(memory.data());
  }
  RowColumns Columns() {
    RowColumns rows;
    for (auto* each : {&rows.source_offset, &rows.target_offset, &rows.length, &rows.operand,
                       &rows.cookie, &rows.result, &rows.message}) {
      *each = Wide();
    }
    rows.source = Word();
    rows.target = Word();
    rows.op = Byte();
    rows.stage = Byte();
    rows.status = Byte();
    return rows;
  }

  ibv_context context = {};
  ibv_qp qp = {};
  ibv_cq cq = {};
  ibv_pd pd = {};
  BatchColumns batch;
  RegionColumns table;
  Column<double> bell = Wide(32);
  Column<double> counted = Wide(p2pdma::abi::work_count::kLength);
  Counts counts{counted};
  std::unique_ptr<Queues> queues;

  Rig() {
    fake = {};
    context.ops.post_send = FakePostSend;
    context.ops.post_recv = FakePostReceive;
    context.ops.poll_cq = FakePoll;
    qp.context = cq.context = pd.context = &context;
    batch = {kDepth, Byte(), Word(), Word(), Wide(), Wide(), Wide(), Wide(), Wide()};
    table.capacity = 2;
    table.iovas = Wide();
    table.sizes = Wide();
    table.ids = Word();
    table.keys = Word();
    table.queues = Word();
    table.states = Byte();
    table.access = Byte();
    for (uint32_t i = 0; i < 2; ++i) {
      table.iovas.Write(i, 4096 * (i + 1));
      table.sizes.Write(i, 4096);
      table.ids.Write(i, i);
      table.states.Write(i, MappingState::kOpen);
      table.access.Write(i, p2pdma::abi::access::kRead | p2pdma::abi::access::kWrite);
    }
    // Attachment 1 is the peer's, on queue 1.
    table.queues.Write(1, 1);
    counts.number.set(1);
    counts.life.set(1);
    counts.is_ready.set(1);
    counts.credit.set(100);
    auto device = std::make_shared<Device>(&context);
    auto domain = std::make_shared<ProtectionDomain>(device, &pd);
    auto completions = std::make_shared<CompletionQueue>(device, nullptr, &cq);
    auto pair = std::make_shared<QueuePair>(domain, completions, completions, nullptr, &qp,
                                            ibv_qp_cap{});
    void* const memory =
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    queues = std::make_unique<Queues>(
        pair, completions, 4096, work::Rows(kDepth, Columns(), bell, 0),
        work::Rows(kDepth, Columns(), bell, 5), counts,
        Scratch{std::make_shared<MappedRange>(memory, 0, 4096, true), 0, 0});
    queues->table = table;
    for (p2pdma::Uses* uses : {&queues->send_uses, &queues->receive_uses}) {
      *uses = {table.capacity, Word(), {Word(1 + 2 * kDepth), 2 * kDepth}};
    }
  }

  // Accepts `count` rows: writes to the peer, messages to it, or receives.
  void Accept(Op op, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      batch.op.Write(i, op);
      batch.length.Write(i, 64);
      batch.source.Write(i, 0);
      batch.target.Write(i, op == kCopy ? 1 : 0);
      batch.cookie.Write(i, i);
    }
    RowDefect defect = RowDefect::kNone;
    CHECK(queues->Accept(batch, 0, count, &defect) == count);
    CHECK(defect == RowDefect::kNone);
  }

  void Completes(uint64_t id, ibv_wc_status status = IBV_WC_SUCCESS, uint32_t length = 64) {
    ibv_wc wc = {};
    wc.wr_id = id;
    wc.status = status;
    wc.byte_len = length;
    fake.completions.push_back(wc);
  }

  // Takes all; how many were none of a success.
  uint32_t Poll() {
    Bad bad;
    uint32_t count = 0;
    while (queues->Poll(&bad)) ++count;
    return count;
  }
};

void TestTakenBefore() {
  ibv_send_wr chain[4] = {};
  const auto before = [&](const void* bad) {
    return TakenBefore(chain, 3, static_cast<const ibv_send_wr*>(bad));
  };
  CHECK(!before(nullptr));
  CHECK(!before(chain + 3));
  CHECK(!before(chain - 1));
  CHECK(!before(reinterpret_cast<std::byte*>(chain) + 1));
  CHECK(!before(reinterpret_cast<void*>(~uintptr_t{0})));
  for (uint32_t i = 0; i < 3; ++i) CHECK(before(chain + i) == i);
  CHECK(Refusal(ENOMEM) == ENOMEM && Refusal(-EINVAL) == EINVAL);
  errno = EPIPE;
  CHECK(Refusal(-1) == EPIPE);
}

void TestRefusedPosts() {
  for (const BadAt bad : {BadAt::kNull, BadAt::kOutside, BadAt::kBefore, BadAt::kMisaligned}) {
    for (const Op op : {kCopy, kSend, kReceive}) {
      Rig rig;
      fake.error = EINVAL;
      fake.bad = bad;
      rig.Accept(op, 3);
      CHECK(rig.queues->Hand() == EINVAL);
      const auto& rows = op == kReceive ? rig.queues->receives : rig.queues->sends;
      // The device may have them: what is to be done once is settled with the peer.
      CHECK(rows.handed.get() == 3);
      CHECK(rows.next.get() == 3);
      CHECK(rig.queues->credited == 0 && rig.counts.posted.get() == 0);
      CHECK(rig.counts.sent.get() == (op == kSend ? 3 : 0));
      CHECK(rows.size() == 3);
    }
    Rig rig;
    fake.error = ENOMEM;
    fake.bad = bad;
    CHECK(rig.queues->SendVoids(5) == ENOMEM);
    CHECK(rig.counts.voids.get() == 5);
  }
}

void TestSaidWhere() {
  Rig rig;
  fake.error = ENOMEM;
  fake.bad = BadAt::kSecond;
  rig.Accept(kSend, 3);
  CHECK(rig.queues->Hand() == ENOMEM);
  CHECK(rig.queues->sends.handed.get() == 1);
  CHECK(rig.queues->sends.next.get() == 1);
  CHECK(rig.counts.sent.get() == 1);
  rig.Accept(kReceive, 2);
  CHECK(rig.queues->Hand() == ENOMEM);
  CHECK(rig.queues->receives.handed.get() == 1);
  CHECK(rig.queues->credited == 1);
}

// What rows name is noted as they are accepted, and told of once.
void TestUses() {
  Rig rig;
  const p2pdma::Uses& sends = rig.queues->send_uses;
  const p2pdma::Uses& receives = rig.queues->receive_uses;
  CHECK(sends.LastRow(0) == -1 && sends.LastRow(1) == -1 && sends.LastRow(7) == -1);
  rig.Accept(kCopy, 3);
  rig.Accept(kSend, 1);
  rig.Accept(kReceive, 2);
  CHECK(sends.LastRow(0) == 3 && sends.LastRow(1) == 2 && receives.LastRow(0) == 1);
  CHECK(sends.LastRow(1 << 20) == -1 && receives.LastRow(1) == -1);
  CHECK(sends.untold.column.Read(0) == 2 && receives.untold.column.Read(0) == 1);
  CHECK(sends.untold.column.Read(1) == 0 && sends.untold.column.Read(2) == 1);
}

void TestUnmatched() {
  Rig rig;
  rig.Accept(kSend, 3);
  rig.Accept(kReceive, 2);
  CHECK(rig.queues->Hand() == 0);
  CHECK(fake.ids.size() == 3 && fake.receive_ids.size() == 2);
  const uint64_t life = uint64_t{1} << 22;  // of a position
  // Positions that were never posted, near and far; no kind; a life that is yet to come; an
  // empty message that was not sent.
  for (const auto status : {IBV_WC_SUCCESS, IBV_WC_REM_ACCESS_ERR}) {
    for (const uint64_t id :
         {fake.ids[2] + life, fake.ids[0] + 5 * life, fake.ids[0] + (uint64_t{1} << 63),
          ~uint64_t{0}, fake.ids[0] | 3, fake.ids[0] + 4, fake.receive_ids[1] + 3 * life,
          fake.ids[0] | 2}) {
      rig.Completes(id, status);
    }
  }
  CHECK(rig.Poll() == 0);
  CHECK(rig.counts.unmatched.get() == 16);
  CHECK(rig.queues->sends.handed.get() == 3 && rig.queues->receives.handed.get() == 2);
  // Of the life before: flushed, and settled since.
  rig.Completes(fake.ids[0] - 4);
  CHECK(rig.Poll() == 0);
  CHECK(rig.counts.unmatched.get() == 16);
  // Those that were posted are done, once.
  rig.Completes(fake.receive_ids[0], IBV_WC_SUCCESS, 1 << 30);
  rig.Completes(fake.ids[2]);
  rig.Completes(fake.ids[2]);
  CHECK(rig.Poll() == 0);
  CHECK(rig.counts.unmatched.get() == 17);
  CHECK(rig.queues->sends.handed.get() == 0 && rig.queues->receives.handed.get() == 1);
  // No more has come than there is room for.
  CHECK(rig.queues->receives.columns.result.Read(0) == 64);
}

void TestMoreThanAskedFor() {
  Rig rig;
  rig.Accept(kSend, 1);
  CHECK(rig.queues->Hand() == 0);
  rig.Completes(fake.ids[0]);
  fake.claims = 1 << 20;
  CHECK(rig.Poll() == 0);
  CHECK(rig.queues->sends.handed.get() == 0);
}

// JavaScript can write the cursors.
void TestCursors() {
  Rig rig;
  rig.Accept(kSend, 2);
  rig.queues->sends.tail.set(uint64_t{1} << 52);
  rig.queues->receives.tail.set(uint64_t{1} << 52);
  CHECK(rig.queues->Hand() == 0);
  rig.bell.Write(0, -1);
  CHECK(rig.queues->Hand() == 0);
  rig.Poll();
}

}  // namespace

int main() {
  TestTakenBefore();
  TestRefusedPosts();
  TestSaidWhere();
  TestUses();
  TestUnmatched();
  TestMoreThanAskedFor();
  TestCursors();
  std::puts("ok");
  return 0;
}
