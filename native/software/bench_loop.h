// The same loop as test/bench/post.ts, in C++: what the batch form is measured
// against.
#pragma once

#include <cstdint>

#include "channel.h"
#include "engine.h"

namespace p2pdma::software {

struct BenchParameters {
  uint32_t operations;
  uint32_t batch;
  uint32_t source;
  uint32_t target;
};

// Nanoseconds of CPU that the calling thread has used.
double ThreadCpuTime();

// Fills and posts zero-byte copies, `batch` at a time, waits for the device,
// and reaps, with the columns that the channel uses. `operations`: a multiple
// of `batch`, and no more than the channel's depth. Returns the nanoseconds of
// CPU without the waiting, or -1 where a number or a row was refused.
double BenchLoop(Engine& engine, Channel& channel, const BatchColumns& batch,
                 const CompletionColumns& completions, const BenchParameters& parameters);

}  // namespace p2pdma::software
