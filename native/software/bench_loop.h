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

// Fills, posts and reaps zero-byte copies, `batch` at a time, with the columns
// that the channel uses. Returns nanoseconds, or -1 if the batch is too large
// or a row was refused.
double BenchLoop(Engine& engine, Channel& channel, const BatchColumns& batch,
                 const CompletionColumns& completions, const BenchParameters& parameters);

}  // namespace p2pdma::software
