// The columns of a Batch and of Completions (lib/move-notify/importer/batch.ts): raw
// pointers into one SharedArrayBuffer, which is never detached. Another
// JavaScript thread may write while we read, so each value is read once, into
// a local, and what was checked is what is used.
#pragma once

#include <bit>
#include <cstdint>

namespace p2pdma {

template <typename T>
class Column {
 public:
  Column() = default;
  explicit Column(void* data) : data_(static_cast<T*>(data)) {}
  T Read(uint32_t row) const {
    if constexpr (sizeof(T) == 8) {
      // Doubles as integers: there is no relaxed load of a double.
      return std::bit_cast<T>(
          __atomic_load_n(reinterpret_cast<const uint64_t*>(data_ + row), __ATOMIC_RELAXED));
    } else {
      return __atomic_load_n(data_ + row, __ATOMIC_RELAXED);
    }
  }
  void Write(uint32_t row, T value) const {
    if constexpr (sizeof(T) == 8) {
      __atomic_store_n(reinterpret_cast<uint64_t*>(data_ + row), std::bit_cast<uint64_t>(value),
                       __ATOMIC_RELAXED);
    } else {
      __atomic_store_n(data_ + row, value, __ATOMIC_RELAXED);
    }
  }
  // What begins with this row.
  Column From(uint32_t row) const { return Column(data_ + row); }

 private:
  T* data_ = nullptr;
};

// Exactly the doubles that are whole numbers from 0 to 2^53 - 1. By their bits:
// where floating point is emulated that is several times faster.
inline bool Whole(double value, uint64_t* out) {
  const auto bits = std::bit_cast<uint64_t>(value);
  const uint64_t exponent = bits >> 52;  // with the sign above it
  if (exponent - 1023 > 52) {
    *out = 0;
    return bits << 1 == 0;
  }
  const uint64_t mantissa = (bits & ((uint64_t{1} << 52) - 1)) | uint64_t{1} << 52;
  const uint64_t shift = 52 - (exponent - 1023);
  *out = mantissa >> shift;
  return *out << shift == mantissa;
}

struct BatchColumns {
  uint32_t capacity = 0;
  Column<uint8_t> op;
  Column<uint32_t> source;
  Column<uint32_t> target;
  Column<double> source_offset;
  Column<double> target_offset;
  Column<double> length;
  Column<double> operand;
  Column<double> cookie;
};

struct CompletionColumns {
  uint32_t capacity = 0;
  Column<double> cookie;
  Column<double> result;
  Column<uint32_t> status;
  Column<uint32_t> epoch;
};

}  // namespace p2pdma
