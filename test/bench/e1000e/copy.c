#include "copy.h"

// GCC turns a plain loop into memcpy() at -O2, which may use `rep movsb`: on an uncached mapping
// byte by byte. A volatile source keeps the loop, and each load whole.
#define COPY_BY(bytes, name, attribute)                                 \
  typedef long long name##_word __attribute__((vector_size(bytes)));    \
  attribute static void name(void* to, const void* from, size_t size) { \
    volatile name##_word* target = to;                                  \
    const volatile name##_word* source = from;                          \
    for (size_t left = size; left > 0; left -= 4 * (bytes)) {           \
      const name##_word a = source[0];                                  \
      const name##_word b = source[1];                                  \
      const name##_word c = source[2];                                  \
      const name##_word d = source[3];                                  \
      target[0] = a;                                                    \
      target[1] = b;                                                    \
      target[2] = c;                                                    \
      target[3] = d;                                                    \
      source += 4;                                                      \
      target += 4;                                                      \
    }                                                                   \
  }

COPY_BY(16, copy16, )

#if defined(__x86_64__)

COPY_BY(32, copy32, __attribute__((target("avx"))))
COPY_BY(64, copy64, __attribute__((target("avx512f"))))

void wide_copy(void* to, const void* from, size_t size) {
  if (__builtin_cpu_supports("avx512f")) {
    copy64(to, from, size);
  } else if (__builtin_cpu_supports("avx")) {
    copy32(to, from, size);
  } else {
    copy16(to, from, size);
  }
}

#else

void wide_copy(void* to, const void* from, size_t size) { copy16(to, from, size); }

#endif
