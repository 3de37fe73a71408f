// A move of one buffer as C++ alone would do it, beside which the heart's is
// measured (test/bench/pause.ts).
#pragma once

#include <cstdint>
#include <memory>

#include "../support/mapped_range.h"
#include "channel.h"
#include "engine.h"

namespace p2pdma::software {

// Nanoseconds of each step, as the clock on the wall has them; `cpu`: of the
// calling thread over all of them, without its waiting for the device.
struct PauseSplit {
  double stop = 0;  // until the device is quiet
  double unmap = 0;
  double copy = 0;
  double map = 0;
  double restart = 0;
  double cpu = 0;
};

// Stops the channel, which runs, unmaps the id, copies what it stood for to
// `to`, maps the id there, and restarts. False where a step was refused.
bool BenchPause(Engine& engine, Channel& channel, uint32_t id,
                const std::shared_ptr<MappedRange>& to, PauseSplit* split);

}  // namespace p2pdma::software
