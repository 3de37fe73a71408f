#include "bench_loop.h"

#include <sched.h>

#include "wait.h"

namespace p2pdma::software {

namespace {

double Post(Engine& engine, Channel& channel, const BatchColumns& batch,
            const BenchParameters& parameters) {
  const double start = ThreadCpuTime();
  for (uint32_t cookie = 0; cookie < parameters.operations; cookie += parameters.batch) {
    for (uint32_t row = 0; row < parameters.batch; ++row) {
      batch.op.Write(row, static_cast<uint8_t>(Op::kCopy));
      batch.source.Write(row, parameters.source);
      batch.target.Write(row, parameters.target);
      batch.source_offset.Write(row, 0);
      batch.target_offset.Write(row, 64);
      batch.length.Write(row, 0);
      batch.cookie.Write(row, cookie + row);
    }
    const PostResult result = engine.Post(channel, batch, 0, parameters.batch);
    if (result.accepted != parameters.batch) return -1;
  }
  return ThreadCpuTime() - start;
}

double Reap(Channel& channel, const CompletionColumns& completions,
            const BenchParameters& parameters) {
  const double start = ThreadCpuTime();
  double sum = 0;
  for (uint32_t reaped = 0; reaped < parameters.operations;) {
    const uint32_t count = channel.Reap(completions).rows;
    for (uint32_t row = 0; row < count; ++row) sum += completions.cookie.Read(row);
    reaped += count;
  }
  const double elapsed = ThreadCpuTime() - start;
  const double n = parameters.operations;
  return sum == n * (n - 1) / 2 ? elapsed : -1;
}

}  // namespace

double ThreadCpuTime() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

double BenchLoop(Engine& engine, Channel& channel, const BatchColumns& batch,
                 const CompletionColumns& completions, const BenchParameters& parameters) {
  if (parameters.batch == 0 || parameters.batch > batch.capacity || completions.capacity == 0 ||
      parameters.operations > channel.depth() || parameters.operations % parameters.batch != 0 ||
      channel.state() != State::kRunning || channel.in_flight() != 0) {
    return -1;
  }
  const uint64_t before = engine.stats().operations.load();
  const double posting = Post(engine, channel, batch, parameters);
  while (engine.stats().operations.load() - before < channel.in_flight()) sched_yield();
  const double reaping = Reap(channel, completions, parameters);
  return posting < 0 || reaping < 0 ? -1 : posting + reaping;
}

}  // namespace p2pdma::software
