#include "bench_pause.h"

#include "../support/wide_copy.h"
#include "bench_loop.h"
#include "wait.h"

namespace p2pdma::software {

namespace {

// How long the device may take to be quiet: it may have been told to hang.
constexpr uint64_t kPatience = 1'000'000'000;  // ns

}  // namespace

bool BenchPause(Engine& engine, Channel& channel, uint32_t id,
                const std::shared_ptr<MappedRange>& to, PauseSplit* split) {
  const auto* const entry = engine.table().Find(id);
  if (entry == nullptr || entry->size > to->size || !to->writable) return false;
  if (channel.state() != State::kRunning) return false;
  // Keeps the old memory.
  const std::shared_ptr<MappedRange> from = entry->range;
  const std::byte* const data = entry->base;
  const uint64_t size = entry->size;
  const uint32_t access = entry->access;

  uint64_t last = Now();
  const auto since_last = [&last] {
    const uint64_t now = Now();
    const uint64_t elapsed = now - last;
    last = now;
    return static_cast<double>(elapsed);
  };
  double cpu = ThreadCpuTime();
  engine.Stop(channel);
  split->cpu = ThreadCpuTime() - cpu;
  for (Backoff backoff; channel.state() == State::kStopping;) {
    if (Now() - last > kPatience) return false;
    backoff.Pause();
  }
  cpu = ThreadCpuTime();
  split->stop = since_last();
  if (!engine.Unmap(id)) return false;
  split->unmap = since_last();
  CopyBytes(to->data, to->device, data, from->device, size);
  split->copy = since_last();
  if (engine.table().Map(id, to, 0, size, access) == 0) return false;
  engine.table().Seal(id, false);
  split->map = since_last();
  if (!engine.Restart(channel)) return false;
  split->restart = since_last();
  split->cpu += ThreadCpuTime() - cpu;
  return true;
}

}  // namespace p2pdma::software
