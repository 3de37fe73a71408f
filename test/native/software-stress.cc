// The software engine under ThreadSanitizer (or AddressSanitizer), without
// Node: one thread posts, reaps, stops, forces, moves and breaks things at
// random, the device thread works. Built and run by test/native/sanitizers.test.ts.
//
//   software-stress [SEED [ROUNDS]]
//   software-stress --break     mistakes that each sanitizer has to report
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "software/engine.h"

namespace {

using namespace p2pdma;
using namespace p2pdma::software;

constexpr uint32_t kRows = 64;
constexpr uint32_t kAttachments = 8;
constexpr uint64_t kSize = 256 * 1024;

#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) {                                            \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      std::abort();                                                \
    }                                                              \
  } while (false)

struct Columns {
  std::vector<uint8_t> op = std::vector<uint8_t>(kRows);
  std::vector<uint32_t> words[4];
  std::vector<double> wide[5];
  BatchColumns batch;
  CompletionColumns completions;

  Columns() {
    for (auto& each : words) each.resize(kRows);
    for (auto& each : wide) each.resize(kRows);
    batch = {kRows,
             Column<uint8_t>(op.data()),
             Column<uint32_t>(words[0].data()),
             Column<uint32_t>(words[1].data()),
             Column<double>(wide[0].data()),
             Column<double>(wide[1].data()),
             Column<double>(wide[2].data()),
             Column<double>(wide[3].data()),
             Column<double>(wide[4].data())};
    completions = {kRows, Column<double>(wide[0].data()), Column<double>(wide[1].data()),
                   Column<uint32_t>(words[2].data()), Column<uint32_t>(words[3].data())};
  }
};

std::shared_ptr<MappedRange> Allocate() {
  void* const memory =
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  return std::make_shared<MappedRange>(memory, 0, kSize, true);
}

void Round(uint32_t seed, uint32_t steps) {
  std::mt19937 random(seed);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  std::atomic<uint64_t> notified{0};
  Engine engine([&] { notified.fetch_add(1); });
  Columns columns;
  struct Side {
    std::shared_ptr<Channel> channel;
    uint64_t accepted = 0;
    uint64_t reaped = 0;
    uint32_t epoch = 1;
    double next = 0;  // the cookie expected next
    std::vector<uint32_t> last = std::vector<uint32_t>(2 * kAttachments);
    std::vector<uint32_t> untold = std::vector<uint32_t>(1 + 2 * 32);
  };
  uint64_t stale = 0;
  std::vector<Side> sides(3);
  for (auto& side : sides) {
    side.channel = engine.OpenChannel(32);
    side.channel->uses = {kAttachments, Column<uint32_t>(side.last.data()),
                          {Column<uint32_t>(side.untold.data()), 2 * 32}};
  }
  std::vector<std::shared_ptr<MappedRange>> ranges(kAttachments);
  for (uint32_t id = 0; id < kAttachments; ++id) {
    ranges[id] = Allocate();
    CHECK(engine.table().Map(id, ranges[id], 0, kSize, 3) != 0);
    engine.table().Seal(id, false);
  }

  const auto post = [&](Side& side) {
    const uint32_t rows = 1 + below(16);
    for (uint32_t row = 0; row < rows; ++row) {
      columns.batch.op.Write(row, static_cast<uint8_t>(below(4)));
      const uint32_t source = below(kAttachments);
      columns.batch.source.Write(row, source);
      columns.batch.target.Write(row, (source + 1 + below(kAttachments - 1)) % kAttachments);
      const bool adds = columns.batch.op.Read(row) == 3;
      columns.batch.source_offset.Write(row, below(1000));
      columns.batch.target_offset.Write(row, below(100) * 8);
      columns.batch.length.Write(row, adds ? 8 : below(4) == 0 ? 200'000 : below(1000));
      columns.batch.operand.Write(row, below(256));
      columns.batch.cookie.Write(row, static_cast<double>(side.accepted + row));
    }
    const PostResult result = engine.Post(*side.channel, columns.batch, 0, rows);
    CHECK(result.defect == RowDefect::kNone);
    side.accepted += result.accepted;
    CHECK(side.channel->in_flight() <= 32);
  };
  const auto reap = [&](Side& side) {
    const ReapResult result = side.channel->Reap(columns.completions);
    uint32_t late = 0;
    for (uint32_t row = 0; row < result.rows; ++row) {
      if (columns.completions.epoch.Read(row) != side.epoch) {
        ++late;
        continue;
      }
      // In order, each exactly once.
      CHECK(columns.completions.cookie.Read(row) == side.next);
      side.next += 1;
      ++side.reaped;
    }
    CHECK(result.stale == late);
    stale += late;
  };
  const auto stop = [&](Side& side, bool force) {
    if (!engine.Stop(*side.channel)) {
      for (uint32_t spins = 0; side.channel->state() != State::kStopped; ++spins) {
        if (spins > 2000 || force) {
          side.epoch = side.channel->Force();
        } else {
          sched_yield();
        }
      }
    }
  };
  const auto move = [&](uint32_t id, bool stops) {
    engine.table().Seal(id, true);
    std::vector<Side*> users;
    for (auto& side : sides) {
      if (stops && side.channel->IsUsed(id)) users.push_back(&side);
    }
    for (Side* side : users) stop(*side, below(8) == 0);
    engine.Unmap(id);
    // The device may reach neither of the two now: TSan sees it if it does.
    auto fresh = Allocate();
    std::memcpy(fresh->data, ranges[id]->data, kSize);
    std::memset(ranges[id]->data, 0xee, kSize);
    ranges[id] = fresh;
    CHECK(engine.table().Map(id, fresh, 0, kSize, 3) != 0);
    engine.table().Seal(id, false);
    for (Side* side : users) CHECK(engine.Restart(*side->channel));
  };

  for (uint32_t step = 0; step < steps; ++step) {
    Side& side = sides[below(3)];
    switch (below(12)) {
      case 0:
        move(below(kAttachments), true);
        break;
      case 1:
        move(below(kAttachments), false);
        break;
      case 2:
        stop(side, below(2) == 0);
        CHECK(engine.Restart(*side.channel));
        break;
      case 3:
        if (below(4) == 0) engine.Inject({Fault::kStall, 0, 1000 * below(100), 0});
        break;
      case 4:
        side.channel->SetSlow(below(2) * 1000);
        engine.Unstall(below(2) == 0 ? nullptr : side.channel.get());
        break;
      case 5:
        engine.Arm(*side.channel);
        side.channel->TakeEvents();
        break;
      case 6:
        engine.Inject({below(2) == 0 ? Fault::kTorn : Fault::kLost, 0, 0, 0});
        break;
      default:
        post(side);
        reap(side);
    }
  }
  for (auto& side : sides) {
    side.channel->SetSlow(0);
    while (side.channel->in_flight() != 0) {
      engine.Unstall(nullptr);
      reap(side);
    }
    CHECK(side.reaped == side.accepted);
  }
  std::printf("seed %u: %lu operations, %lu faults, %lu injected, %lu sleeps, %lu stale\n", seed,
              engine.stats().operations.load(), engine.stats().faults.load(),
              engine.stats().injected.load(), engine.stats().sleeps.load(), stale);
  if (seed % 2 == 0) engine.Close();
}

// Each sanitizer sees one of them: two threads without a lock, and a read past the end.
void Break() {
  uint32_t shared = 0;
  std::thread other([&] { ++shared; });
  ++shared;
  other.join();
  const std::vector<uint32_t> numbers(shared + 1);
  const volatile uint32_t* const end = numbers.data() + numbers.size();
  std::printf("behind the end: %u\n", *end);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--break") == 0) {
    Break();
    return 0;
  }
  const uint32_t seed = argc > 1 ? static_cast<uint32_t>(std::atoi(argv[1])) : 1;
  const uint32_t rounds = argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 5;
  for (uint32_t round = 0; round < rounds; ++round) Round(seed + round, 3000);
  return 0;
}
