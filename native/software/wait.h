// Waiting without a lock: a back-off for waits of at most one chunk, and a
// futex on which the device thread sleeps.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace p2pdma::software {

inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Nanoseconds of CLOCK_MONOTONIC.
inline uint64_t Now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(time.tv_nsec);
}

inline constexpr uint64_t kNever = UINT64_MAX;
// When the device, which had no memory, tries again.
inline constexpr uint64_t kMemoryPatience = 1'000'000;  // ns

// A few pauses, then the CPU is given away: on one core the other side cannot
// go on before we do.
class Backoff {
 public:
  void Pause() {
    if (++turns_ < 64) {
      CpuRelax();
    } else {
      sched_yield();
    }
  }

 private:
  uint32_t turns_ = 0;
};

// Sleeps while `*word == expected`, until woken or until `deadline` (kNever: no limit).
inline void FutexWait(std::atomic<uint32_t>* word, uint32_t expected, uint64_t deadline) {
  timespec until{};
  const timespec* limit = nullptr;
  if (deadline != kNever) {
    until.tv_sec = static_cast<time_t>(deadline / 1'000'000'000U);
    until.tv_nsec = static_cast<long>(deadline % 1'000'000'000U);
    limit = &until;
  }
  // WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC.
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG,
          expected, limit, nullptr, FUTEX_BITSET_MATCH_ANY);
}

inline void FutexWake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr,
          nullptr, 0);
}

}  // namespace p2pdma::software
