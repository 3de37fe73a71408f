// What the modes of the program share.
#ifndef TEST_BENCH_E1000E_PEER_H_
#define TEST_BENCH_E1000E_PEER_H_

#include <stdint.h>

struct settings {
  const char* sender;
  const char* receiver;
  const char* memory;  // The device whose BAR2 is used as memory.
  uint32_t depth;      // In flight in each ring at most; a power of two.
  uint32_t batch;
  uint32_t frames;
  uint64_t size;
  uint32_t moves;
  int from_bar;
};

void run_frames(const struct settings* settings);
void run_pause(const struct settings* settings);

#endif  // TEST_BENCH_E1000E_PEER_H_
