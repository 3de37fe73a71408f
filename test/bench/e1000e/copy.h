// Copies that a BAR can take: whole aligned words only, the widest the CPU has.
#ifndef TEST_BENCH_E1000E_COPY_H_
#define TEST_BENCH_E1000E_COPY_H_

#include <stddef.h>

// Both ends page-aligned, `size` a multiple of 4096.
void wide_copy(void* to, const void* from, size_t size);

#endif  // TEST_BENCH_E1000E_COPY_H_
