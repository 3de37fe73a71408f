// The order of a device's registers and the memory that it shares with us.
#pragma once

namespace p2pdma {

// What the device is to find in memory is there before the store that tells it
// so.
inline void BeforeRegisterStore() {
#if defined(__aarch64__)
  asm volatile("dmb oshst" ::: "memory");
#else
  asm volatile("" ::: "memory");
#endif
}

// What a load has told us of is not looked at before it.
inline void AfterRegisterLoad() {
#if defined(__aarch64__)
  asm volatile("dmb oshld" ::: "memory");
#else
  asm volatile("" ::: "memory");
#endif
}

}  // namespace p2pdma
