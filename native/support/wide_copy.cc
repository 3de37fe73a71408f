#include "support/wide_copy.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace p2pdma {

namespace {

// Blocks in one go: a write-combined line is read at once, not in pieces with stores between.
constexpr size_t kUnroll = 4;

// Vectors that may lie over anything; `U` also anywhere.
template <size_t kWidth>
struct Vector {
  using V [[gnu::vector_size(kWidth), gnu::may_alias]] = uint64_t;
  using U [[gnu::aligned(1)]] = V;
};
template <>
struct Vector<8> {
  using V [[gnu::may_alias]] = uint64_t;
  using U [[gnu::aligned(1)]] = V;
};

// How a device's memory is read. Volatile: each access once, and no loop made into a memcpy.
struct Plain {
  template <typename V>
  [[gnu::always_inline]] static inline void Load(V* value, const std::byte* from) {
    *value = *reinterpret_cast<const volatile V*>(from);
  }
};

#if defined(__x86_64__)
// The streaming load takes a whole line from write-combined memory at once;
// anywhere else it is an ordinary load (Intel SDM volume 2, MOVNTDQA).
struct Streaming {
  template <typename V>
  [[gnu::always_inline]] static inline void Load(V* value, const std::byte* from) {
    const V* const place = reinterpret_cast<const V*>(from);
    if constexpr (sizeof(V) == 16) {
      asm volatile("movntdqa %1, %0" : "=x"(*value) : "m"(*place));
    } else {
      asm volatile("vmovntdqa %1, %0" : "=x"(*value) : "m"(*place));
    }
  }
};
#endif

template <size_t kWidth, typename Way, bool kFrom, bool kTo, size_t kCount>
[[gnu::always_inline]] inline void Blocks(std::byte* to, const std::byte* from) {
  using V = typename Vector<kWidth>::V;
  using U = typename Vector<kWidth>::U;
  V values[kCount];
#pragma GCC unroll 8
  for (size_t i = 0; i < kCount; ++i) {
    const std::byte* const place = from + i * kWidth;
    if constexpr (kFrom) {
      Way::Load(&values[i], place);
    } else {
      values[i] = *reinterpret_cast<const U*>(place);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < kCount; ++i) {
    std::byte* const place = to + i * kWidth;
    if constexpr (kTo) {
      *reinterpret_cast<volatile V*>(place) = values[i];
    } else {
      *reinterpret_cast<U*>(place) = values[i];
    }
  }
}

template <size_t kWidth, typename Way, bool kFrom, bool kTo>
[[gnu::always_inline]] inline void Loop(std::byte* to, const std::byte* from, size_t blocks) {
  for (; blocks >= kUnroll; blocks -= kUnroll) {
    Blocks<kWidth, Way, kFrom, kTo, kUnroll>(to, from);
    to += kUnroll * kWidth;
    from += kUnroll * kWidth;
  }
  for (; blocks > 0; --blocks) {
    Blocks<kWidth, Way, kFrom, kTo, 1>(to, from);
    to += kWidth;
    from += kWidth;
  }
}

// The three functions of a WideCopy, compiled for one instruction set.
#define P2PDMA_WIDE_COPY(Name, kWidth, Way, ...)                                                 \
  struct Name {                                                                                  \
    __VA_ARGS__ static void Load(std::byte* to, const std::byte* from, size_t n) {               \
      Loop<kWidth, Way, true, false>(to, from, n);                                               \
    }                                                                                            \
    __VA_ARGS__ static void Store(std::byte* to, const std::byte* from, size_t n) {              \
      Loop<kWidth, Way, false, true>(to, from, n);                                               \
    }                                                                                            \
    __VA_ARGS__ static void Both(std::byte* to, const std::byte* from, size_t n) {               \
      Loop<kWidth, Way, true, true>(to, from, n);                                                \
    }                                                                                            \
    static constexpr WideCopy As(const char* name) { return {name, kWidth, Load, Store, Both}; } \
  }

P2PDMA_WIDE_COPY(Words, 8, Plain);
P2PDMA_WIDE_COPY(Vectors, 16, Plain);
#if defined(__x86_64__)
P2PDMA_WIDE_COPY(Sse41, 16, Streaming, [[gnu::target("sse4.1")]]);
P2PDMA_WIDE_COPY(Avx2, 32, Streaming, [[gnu::target("avx2")]]);
P2PDMA_WIDE_COPY(Avx512, 64, Streaming, [[gnu::target("avx512f")]]);

enum class Machine { kReal, kEmulated, kVirtual };

// CPUID: the bit of hypervisors, and the signature of QEMU's emulation.
Machine FindMachine() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & (1U << 31)) == 0) {
    return Machine::kReal;
  }
  __cpuid(0x40000000, eax, ebx, ecx, edx);
  return ebx == 0x54474354 ? Machine::kEmulated : Machine::kVirtual;  // "TCGT"
}
#endif

std::vector<WideCopy> FindWideCopies() {
  std::vector<WideCopy> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) found.push_back(Avx512::As("avx512"));
  if (__builtin_cpu_supports("avx2")) found.push_back(Avx2::As("avx2"));
  if (__builtin_cpu_supports("sse4.1")) found.push_back(Sse41::As("sse4.1"));
  const Machine machine = FindMachine();
  // The others stay in the list, behind: by name they can be asked for.
  // A hypervisor that emulates a BAR has to decode the instruction that touches
  // it. KVM knows movdqa and its kin but no VEX prefix and no streaming load
  // (arch/x86/kvm/emulate.c), and the guest would end there.
  found.insert(machine == Machine::kVirtual ? found.begin() : found.end(), Vectors::As("sse2"));
  // TCG knows them all and does each piece by piece: 64 KiB of a BAR took 94 us
  // with avx2, 51 with sse2, 33 with words.
  if (machine == Machine::kEmulated) {
    found.insert(found.begin(), Words::As("words"));
    return found;
  }
#elif defined(__aarch64__)
  found.push_back(Vectors::As("neon"));
#endif
  found.push_back(Words::As("words"));
  return found;
}

// Loads are not satisfied from lines that were streamed before.
inline void Before() {
#if defined(__x86_64__)
  asm volatile("mfence" ::: "memory");
#elif defined(__aarch64__)
  asm volatile("dmb osh" ::: "memory");
#endif
}

struct Transfer {
  std::byte* to;
  const std::byte* from;
  bool to_device;
  bool from_device;

  // What must be aligned. Where both must, they are aligned alike up to a limit.
  uintptr_t anchor() const {
    return to_device ? reinterpret_cast<uintptr_t>(to) : reinterpret_cast<uintptr_t>(from);
  }
  void Advance(size_t bytes) {
    to += bytes;
    from += bytes;
  }

  template <typename T>
  void One() {
    T value;
    if (from_device) {
      value = *reinterpret_cast<const volatile T*>(from);
    } else {
      std::memcpy(&value, from, sizeof value);
    }
    if (to_device) {
      *reinterpret_cast<volatile T*>(to) = value;
    } else {
      std::memcpy(to, &value, sizeof value);
    }
    Advance(sizeof value);
  }

  // The largest power of two up to `limit` that fits what is left and keeps the alignment.
  void Bytes(size_t length, size_t limit) {
    while (length > 0) {
      size_t step = limit;
      while (step > length || anchor() % step != 0) step /= 2;
      switch (step) {
        case 8:
          One<uint64_t>();
          break;
        case 4:
          One<uint32_t>();
          break;
        case 2:
          One<uint16_t>();
          break;
        default:
          One<uint8_t>();
      }
      length -= step;
    }
  }
};

void Forward(Transfer transfer, size_t length, const WideCopy& way) {
  const bool both = transfer.to_device && transfer.from_device;
  const auto distance =
      reinterpret_cast<uintptr_t>(transfer.to) - reinterpret_cast<uintptr_t>(transfer.from);
  if (both && distance % way.width != 0) {
    size_t limit = 8;
    while (distance % limit != 0) limit /= 2;
    transfer.Bytes(length, limit);
    return;
  }
  const size_t head = std::min(length, -transfer.anchor() % way.width);
  transfer.Bytes(head, 8);
  length -= head;
  const auto blocks = both ? way.both : transfer.to_device ? way.store : way.load;
  blocks(transfer.to, transfer.from, length / way.width);
  transfer.Advance(length - length % way.width);
  transfer.Bytes(length % way.width, 8);
}

}  // namespace

std::span<const WideCopy> WideCopies() {
  static const std::vector<WideCopy> found = FindWideCopies();
  return found;
}

void CopyBytes(std::byte* to, bool to_device, const std::byte* from, bool from_device,
               size_t length, const WideCopy& way) {
  if (!to_device && !from_device) {
    std::memmove(to, from, length);
    return;
  }
  Before();
  const auto distance = reinterpret_cast<uintptr_t>(to) - reinterpret_cast<uintptr_t>(from);
  if (distance == 0 || distance >= length) {
    Forward({to, from, to_device, from_device}, length, way);
  } else {
    // The target's begin overwrites the source's end: from the end, in pieces that do not overlap.
    while (length > 0) {
      const size_t piece = std::min<size_t>(length, distance);
      length -= piece;
      Forward({to + length, from + length, to_device, from_device}, piece, way);
    }
  }
  DeviceFence();
}

// Nothing is left in a write-combining buffer.
void DeviceFence() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#elif defined(__aarch64__)
  asm volatile("dmb osh" ::: "memory");
#endif
}

void FillWords(std::byte* to, bool to_device, uint64_t pattern, size_t length) {
  if (!to_device) {
    std::fill_n(reinterpret_cast<uint64_t*>(to), length / sizeof pattern, pattern);
    return;
  }
  alignas(64) std::array<uint64_t, 512> block;
  block.fill(pattern);
  // Whole words from a word's boundary on: every piece begins with the pattern's first byte.
  const auto* const bytes = reinterpret_cast<const std::byte*>(block.data());
  for (size_t at = 0; at < length; at += sizeof block) {
    CopyBytes(to + at, true, bytes, false, std::min(sizeof block, length - at));
  }
}

}  // namespace p2pdma
