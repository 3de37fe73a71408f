#include "bench_loop.h"

#include "wait.h"

namespace p2pdma::software {

double BenchLoop(Engine& engine, Channel& channel, const BatchColumns& batch,
                 const CompletionColumns& completions, const BenchParameters& parameters) {
  if (parameters.batch == 0 || parameters.batch > batch.capacity || completions.capacity == 0) {
    return -1;
  }
  if (channel.state() != State::kRunning || channel.in_flight() != 0) return -1;
  const uint64_t start = Now();
  uint32_t cookie = 0;
  uint32_t reaped = 0;
  double sum = 0;
  while (reaped < parameters.operations) {
    const uint32_t left = parameters.operations - cookie;
    const uint32_t rows = left < parameters.batch ? left : parameters.batch;
    if (rows != 0 && channel.in_flight() + rows <= channel.depth()) {
      for (uint32_t row = 0; row < rows; ++row) {
        batch.op.Write(row, static_cast<uint8_t>(Op::kCopy));
        batch.source.Write(row, parameters.source);
        batch.target.Write(row, parameters.target);
        batch.source_offset.Write(row, 0);
        batch.target_offset.Write(row, 64);
        batch.length.Write(row, 0);
        batch.cookie.Write(row, cookie + row);
      }
      const PostResult result = engine.Post(channel, batch, 0, rows);
      if (result.accepted != rows) return -1;
      cookie += rows;
    }
    const uint32_t count = channel.Reap(completions);
    for (uint32_t row = 0; row < count; ++row) sum += completions.cookie.Read(row);
    reaped += count;
  }
  const double elapsed = static_cast<double>(Now() - start);
  const double n = parameters.operations;
  return sum == n * (n - 1) / 2 ? elapsed : -1;
}

}  // namespace p2pdma::software
