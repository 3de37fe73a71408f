// Stamped blocks for the smoke test: bytes of which each line says which block
// it belongs to, so that what is lost, doubled or torn can be told apart.
//
// A block is a payload of whole lines between two guard lines. A payload that
// has been read is overwritten with a marker, so that the same bytes arriving
// a second time are seen. What a network puts before a payload is a header, at
// the end of the guard line before it.
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "abi.h"
#include "init.h"
#include "mapping.h"
#include "support/args.h"
#include "support/function.h"
#include "support/job.h"
#include "support/wide_copy.h"

namespace p2pdma {

namespace {

using Range = std::shared_ptr<MappedRange>;

constexpr uint64_t kLine = 64;
constexpr size_t kWords = kLine / sizeof(uint64_t);
using Line = std::array<uint64_t, kWords>;

// A job is to be short: what is longer is the caller's to cut.
constexpr size_t kMaxBlocks = 4096;
constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

constexpr uint64_t kMarker = 0xc0c0c0c0c0c0c0c0;
constexpr uint64_t kGuard = 0x9a9a9a9a9a9a9a9a;

using namespace abi::verdict;

constexpr uint64_t Mix(uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93;
  return x ^ (x >> 32);
}

uint64_t Checksum(const Line& line) {
  uint64_t sum = 0x5a17;
  for (size_t i = 0; i + 1 < kWords; ++i) sum = (sum ^ line[i]) * 0x9e3779b97f4a7c15;
  return sum ^ (sum >> 29);
}

// Sequence, offset in the block, run, filler made of these, checksum.
Line MakeLine(uint64_t sequence, uint64_t offset, uint64_t seed) {
  Line line{sequence, offset, seed};
  const uint64_t filler = Mix(sequence ^ Mix(offset ^ seed));
  for (size_t i = 3; i + 1 < kWords; ++i) line[i] = filler + i * 0xa0761d6478bd642f;
  line[kWords - 1] = Checksum(line);
  return line;
}

constexpr Line Uniform(uint64_t word) {
  Line line{};
  for (uint64_t& each : line) each = word;
  return line;
}

constexpr Line kMarkerLine = Uniform(kMarker);
constexpr Line kGuardLine = Uniform(kGuard);

struct Blocks {
  Range range;
  std::vector<uint64_t> offsets;
  std::vector<uint64_t> sequences;
  uint64_t length;
  uint64_t seed;
  bool has_header = false;
  Line before = kGuardLine;  // What stands before a payload that has been stamped or has arrived.

  Line Get(const std::byte* place) const {
    Line line;
    CopyBytes(reinterpret_cast<std::byte*>(line.data()), false, place, range->device, kLine);
    return line;
  }
  void Put(std::byte* place, const Line& line) const {
    CopyBytes(place, range->device, reinterpret_cast<const std::byte*>(line.data()), false, kLine);
  }
  bool Holds(const std::byte* place, const Line& line) const {
    if (range->device) return Get(place) == line;
    return std::memcmp(place, line.data(), kLine) == 0;
  }
};

class StampJob : public Job {
 public:
  explicit StampJob(Blocks blocks) : blocks_(std::move(blocks)) {}

  void Run() override {
    for (size_t i = 0; i < blocks_.offsets.size(); ++i) {
      std::byte* const payload = blocks_.range->data + blocks_.offsets[i];
      if (blocks_.has_header) blocks_.Put(payload - kLine, blocks_.before);
      for (uint64_t at = 0; at < blocks_.length; at += kLine) {
        blocks_.Put(payload + at, MakeLine(blocks_.sequences[i], at, blocks_.seed));
      }
    }
  }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  const Blocks blocks_;
};

class VerifyJob : public Job {
 public:
  VerifyJob(Blocks blocks, bool consume)
      : blocks_(std::move(blocks)), consume_(consume), verdicts_(blocks_.offsets.size()) {}

  void Run() override {
    for (size_t i = 0; i < verdicts_.size(); ++i) {
      std::byte* const payload = blocks_.range->data + blocks_.offsets[i];
      uint8_t verdict = Content(payload, blocks_.sequences[i]);
      // Of an untouched payload the guard is whole; any other has come with its header.
      const bool empty = blocks_.sequences[i] == 0 ? verdict == kIntact : verdict == kUntouched;
      if (!blocks_.Holds(payload - kLine, empty ? kGuardLine : blocks_.before)) {
        verdict |= kGuardBefore;
      }
      if (!blocks_.Holds(payload + blocks_.length, kGuardLine)) verdict |= kGuardAfter;
      verdicts_[i] = verdict;
      if (consume_) Consume(payload);
    }
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Uint8Array result = Napi::Uint8Array::New(env, verdicts_.size());
    std::memcpy(result.Data(), verdicts_.data(), verdicts_.size());
    return result;
  }

 private:
  // Sequence 0 expects the marker.
  uint8_t Content(const std::byte* payload, uint64_t sequence) const {
    for (uint64_t at = 0; at < blocks_.length; at += kLine) {
      const Line line = sequence == 0 ? kMarkerLine : MakeLine(sequence, at, blocks_.seed);
      if (!blocks_.Holds(payload + at, line)) return Classify(payload);
    }
    return kIntact;
  }

  // Not what was expected: is it the marker throughout, one other stamp
  // throughout, or neither?
  uint8_t Classify(const std::byte* payload) const {
    bool marker = true;
    bool stamp = true;
    const uint64_t sequence = blocks_.Get(payload)[0];
    for (uint64_t at = 0; at < blocks_.length && (marker || stamp); at += kLine) {
      marker = marker && blocks_.Holds(payload + at, kMarkerLine);
      stamp = stamp && blocks_.Holds(payload + at, MakeLine(sequence, at, blocks_.seed));
    }
    if (marker) return kUntouched;
    return stamp ? kForeign : kMixed;
  }

  void Consume(std::byte* payload) const {
    blocks_.Put(payload - kLine, kGuardLine);
    for (uint64_t at = 0; at < blocks_.length; at += kLine) blocks_.Put(payload + at, kMarkerLine);
    blocks_.Put(payload + blocks_.length, kGuardLine);
  }

  const Blocks blocks_;
  const bool consume_;
  std::vector<uint8_t> verdicts_;
};

std::vector<uint64_t> NumbersArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Env env = info.Env();
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() ||
      value.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", std::string(name) + " must be a Float64Array",
                     name);
  }
  const auto column = value.As<Napi::Float64Array>();
  const size_t count = column.ElementLength();
  if (count > kMaxBlocks) {
    throw CodedError(
        env, "ERR_OUT_OF_RANGE",
        std::string(name) + " must have at most " + std::to_string(kMaxBlocks) + " elements", name);
  }
  std::vector<uint64_t> numbers(count);
  for (size_t i = 0; i < count; ++i) {
    const double number = column[i];
    if (!(number >= 0) || number > 9007199254740991.0 ||
        number != static_cast<double>(static_cast<uint64_t>(number))) {
      throw CodedError(env, "ERR_OUT_OF_RANGE",
                       std::string(name) + " must hold whole numbers from 0 to 2^53 - 1", name);
    }
    numbers[i] = static_cast<uint64_t>(number);
  }
  return numbers;
}

// At most a line; undefined: none.
void HeaderArg(const Napi::CallbackInfo& info, size_t index, Blocks* blocks) {
  const Napi::Env env = info.Env();
  const Napi::Value value = info[index];
  if (value.IsUndefined()) return;
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "header must be a Uint8Array", "header");
  }
  const auto header = value.As<Napi::Uint8Array>();
  const size_t length = header.ElementLength();
  if (length > kLine) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "header must have at most 64 bytes", "header");
  }
  if (length == 0) return;
  blocks->has_header = true;
  std::memcpy(reinterpret_cast<std::byte*>(blocks->before.data()) + kLine - length, header.Data(),
              length);
}

// (mapping, offsets, sequences, length, seed): the payloads' offsets in the
// mapping, bytes; a sequence for each; the payloads' length, bytes. `header`:
// the index of the argument with the bytes that come before each payload.
Blocks BlocksArg(const Napi::CallbackInfo& info, size_t header) {
  const Napi::Env env = info.Env();
  Blocks blocks{UnwrapMapping(info[0]), NumbersArg(info, 1, "offsets"),
                NumbersArg(info, 2, "sequences"), UintArg(info, 3, "length", kMaxBytes),
                BigUintArg(info, 4, "seed")};
  HeaderArg(info, header, &blocks);
  if (blocks.length == 0 || blocks.length % kLine != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "length must be a multiple of 64 above 0", "length");
  }
  if (blocks.offsets.size() != blocks.sequences.size()) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "there must be one sequence for each offset",
                     "sequences");
  }
  if (blocks.length * blocks.offsets.size() > kMaxBytes) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "at most 64 MiB a call", "offsets");
  }
  if (!blocks.range->writable) {
    throw CodedError(env, "ERR_INVALID_STATE", "the mapping is read-only");
  }
  for (const uint64_t offset : blocks.offsets) {
    if (offset % kLine != 0 || offset < kLine ||
        !blocks.range->Contains(offset - kLine, blocks.length + 2 * kLine)) {
      throw CodedError(env, "ERR_OUT_OF_RANGE",
                       "offsets must be multiples of 64, and leave room for the guard lines",
                       "offsets");
    }
  }
  return blocks;
}

// stampBlocks(mapping, offsets, sequences, length, seed, header?)
Napi::Value StampBlocks(const Napi::CallbackInfo& info) {
  return StartJob(info.Env(), std::make_unique<StampJob>(BlocksArg(info, 5)), "p2pdma.stamp");
}

// verifyBlocks(mapping, offsets, sequences, length, seed, consume, header?): a
// Uint8Array of verdicts. Sequence 0 expects the marker; `consume` leaves it there.
Napi::Value VerifyBlocks(const Napi::CallbackInfo& info) {
  const bool consume = BoolArg(info, 5, "consume");
  return StartJob(info.Env(), std::make_unique<VerifyJob>(BlocksArg(info, 6), consume),
                  "p2pdma.verify");
}

}  // namespace

void InitStamp(Napi::Env, Napi::Object exports) {
  Export<StampBlocks>(exports, "stampBlocks");
  Export<VerifyBlocks>(exports, "verifyBlocks");
}

}  // namespace p2pdma
