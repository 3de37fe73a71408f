// CPU work on mappings in the thread pool, one slice a call: the caller cuts
// what is long into slices, so that ending an environment waits for no more
// than one of them.
#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "fd.h"
#include "init.h"
#include "mapping.h"
#include "support/args.h"
#include "support/function.h"
#include "support/job.h"
#include "support/wide_copy.h"

namespace p2pdma {

namespace {

using Range = std::shared_ptr<MappedRange>;

constexpr uint64_t kWord = sizeof(uint64_t);
constexpr uint64_t kMaxNow = 64 << 10;

Range SliceArg(const Napi::CallbackInfo& info, size_t index, uint64_t offset, uint64_t length,
               bool write) {
  const Napi::Env env = info.Env();
  Range range = UnwrapMapping(info[index]);
  if (!range->Contains(offset, length)) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "the slice must lie inside the mapping", "length");
  }
  if (write && !range->writable) {
    throw CodedError(env, "ERR_INVALID_STATE", "the mapping is read-only");
  }
  return range;
}

void CheckWords(Napi::Env env, uint64_t offset, uint64_t length) {
  if (offset % kWord != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "offset must be a multiple of 8", "offset");
  }
  if (length % kWord != 0) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "length must be a multiple of 8", "length");
  }
}

class CopyJob : public Job {
 public:
  CopyJob(Range target, Range source, uint64_t target_offset, uint64_t source_offset,
          uint64_t length)
      : target_(std::move(target)),
        source_(std::move(source)),
        target_offset_(target_offset),
        source_offset_(source_offset),
        length_(length) {}

  void Run() override {
    CopyBytes(target_->data + target_offset_, target_->device, source_->data + source_offset_,
              source_->device, length_);
  }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  const Range target_;
  const Range source_;
  const uint64_t target_offset_;
  const uint64_t source_offset_;
  const uint64_t length_;
};

class StoreChangesJob : public Job {
 public:
  StoreChangesJob(Range target, uint64_t target_offset, Range source, Range before, uint64_t at,
                  uint64_t length)
      : target_(std::move(target)),
        source_(std::move(source)),
        before_(std::move(before)),
        target_offset_(target_offset),
        at_(at),
        length_(length) {}

  void Run() override {
    auto* const words = reinterpret_cast<volatile uint64_t*>(target_->data + target_offset_);
    const auto* const now = reinterpret_cast<const uint64_t*>(source_->data + at_);
    const auto* const then = reinterpret_cast<const uint64_t*>(before_->data + at_);
    for (uint64_t i = 0; i < length_ / kWord; ++i) {
      if (now[i] != then[i]) words[i] = now[i];
    }
    DeviceFence();
  }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  const Range target_;
  const Range source_;
  const Range before_;
  const uint64_t target_offset_;
  const uint64_t at_;
  const uint64_t length_;
};

class FillJob : public Job {
 public:
  FillJob(Range range, uint64_t offset, uint64_t length, uint64_t pattern)
      : range_(std::move(range)), offset_(offset), length_(length), pattern_(pattern) {}

  void Run() override { FillWords(range_->data + offset_, range_->device, pattern_, length_); }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  const Range range_;
  const uint64_t offset_;
  const uint64_t length_;
  const uint64_t pattern_;
};

class CountRunsJob : public Job {
 public:
  CountRunsJob(Range range, uint64_t offset, uint64_t length, uint64_t pattern, bool in_run)
      : range_(std::move(range)),
        offset_(offset),
        length_(length),
        pattern_(pattern),
        in_run_(in_run) {}

  void Run() override {
    const std::byte* const data = range_->data + offset_;
    if (!range_->device) {
      Count(reinterpret_cast<const uint64_t*>(data), length_ / kWord);
      return;
    }
    alignas(64) std::array<uint64_t, 512> block;
    for (uint64_t at = 0; at < length_; at += sizeof block) {
      const uint64_t bytes = std::min<uint64_t>(sizeof block, length_ - at);
      CopyBytes(reinterpret_cast<std::byte*>(block.data()), false, data + at, true, bytes);
      Count(block.data(), bytes / kWord);
    }
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("runs", static_cast<double>(runs_));
    result.Set("inRun", in_run_);
    return result;
  }

 private:
  void Count(const uint64_t* words, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      const bool differs = words[i] != pattern_;
      if (differs && !in_run_) ++runs_;
      in_run_ = differs;
    }
  }

  const Range range_;
  const uint64_t offset_;
  const uint64_t length_;
  const uint64_t pattern_;
  bool in_run_;
  uint64_t runs_ = 0;
};

// Makes every page of a range present and writable. Returns 0 or an errno.
int Populate(const MappedRange& range, uint64_t offset, uint64_t length) {
  // MADV_POPULATE_WRITE of Linux 5.14, which the headers may lack.
  constexpr int kPopulateWrite = 23;
  return madvise(range.data + offset, length, kPopulateWrite) == 0 ? 0 : errno;
}

class PopulateJob : public Job {
 public:
  PopulateJob(Range range, uint64_t offset, uint64_t length)
      : range_(std::move(range)), offset_(offset), length_(length) {}

  void Run() override { error_ = Populate(*range_, offset_, length_); }
  Napi::Value Result(Napi::Env env) override {
    if (error_ != 0) throw SystemError(env, error_, "madvise");
    return env.Undefined();
  }

 private:
  const Range range_;
  const uint64_t offset_;
  const uint64_t length_;
  int error_ = 0;
};

// Giving back much memory takes the kernel milliseconds.
class LetGoJob : public Job {
 public:
  explicit LetGoJob(size_t fds) { fds_.reserve(fds); }
  void Take(Range range) { range_ = std::move(range); }
  void Take(std::shared_ptr<OwnedFd> fd) { fds_.push_back(std::move(fd)); }

  // Where it could not even be begun, it is done here.
  ~LetGoJob() override { LetGo(std::move(range_)); }
  void Run() override {
    error_ = LetGo(std::move(range_));
    fds_.clear();
  }
  Napi::Value Result(Napi::Env env) override {
    if (error_ != 0) throw SystemError(env, error_, "mmap");
    return env.Undefined();
  }

 private:
  Range range_;
  std::vector<std::shared_ptr<OwnedFd>> fds_;
  int error_ = 0;
};

// letGo(mapping, fds): closes them all at once for the caller, and gives the
// memory back off the loop.
Napi::Value LetGoOf(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[1].IsArray()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "fds must be an array", "fds");
  }
  const auto list = info[1].As<Napi::Array>();
  // The owner of what is taken comes first.
  auto job = std::make_unique<LetGoJob>(list.Length());
  job->Take(TakeMapping(info[0]));
  for (uint32_t i = 0; i < list.Length(); ++i) job->Take(TakeFd(list.Get(i)));
  return StartJob(env, std::move(job), "p2pdma.letGo");
}

// copySlice(target, targetOffset, source, sourceOffset, length)
Napi::Value CopySlice(const Napi::CallbackInfo& info) {
  const uint64_t target_offset = UintArg(info, 1, "targetOffset");
  const uint64_t source_offset = UintArg(info, 3, "sourceOffset");
  const uint64_t length = UintArg(info, 4, "length");
  Range target = SliceArg(info, 0, target_offset, length, true);
  Range source = SliceArg(info, 2, source_offset, length, false);
  return StartJob(info.Env(),
                  std::make_unique<CopyJob>(std::move(target), std::move(source), target_offset,
                                            source_offset, length),
                  "p2pdma.copy");
}

// copySliceNow(target, targetOffset, source, sourceOffset, length, way): on the
// event loop, so of a bounded length; `way` is an index of wideCopies, 0 the best.
Napi::Value CopySliceNow(const Napi::CallbackInfo& info) {
  const uint64_t target_offset = UintArg(info, 1, "targetOffset");
  const uint64_t source_offset = UintArg(info, 3, "sourceOffset");
  const uint64_t length = UintArg(info, 4, "length", kMaxNow);
  const uint64_t way = UintArg(info, 5, "way", WideCopies().size() - 1);
  const Range target = SliceArg(info, 0, target_offset, length, true);
  const Range source = SliceArg(info, 2, source_offset, length, false);
  CopyBytes(target->data + target_offset, target->device, source->data + source_offset,
            source->device, length, WideCopies()[way]);
  return info.Env().Undefined();
}

// populateSlice(mapping, offset, length)
Napi::Value PopulateSlice(const Napi::CallbackInfo& info) {
  const uint64_t offset = UintArg(info, 1, "offset");
  const uint64_t length = UintArg(info, 2, "length");
  Range range = SliceArg(info, 0, offset, length, true);
  return StartJob(info.Env(), std::make_unique<PopulateJob>(std::move(range), offset, length),
                  "p2pdma.populate");
}

// populateSliceNow(mapping, offset, length): on the event loop.
Napi::Value PopulateSliceNow(const Napi::CallbackInfo& info) {
  const uint64_t offset = UintArg(info, 1, "offset");
  const uint64_t length = UintArg(info, 2, "length", kMaxNow);
  const Range range = SliceArg(info, 0, offset, length, true);
  const int error = Populate(*range, offset, length);
  if (error != 0) throw SystemError(info.Env(), error, "madvise");
  return info.Env().Undefined();
}

// storeChangesSlice(target, targetOffset, source, before, at, length): those words
// of `source` that differ from `before`; `at` is in both of them
Napi::Value StoreChangesSlice(const Napi::CallbackInfo& info) {
  const uint64_t target_offset = UintArg(info, 1, "targetOffset");
  const uint64_t at = UintArg(info, 4, "at");
  const uint64_t length = UintArg(info, 5, "length");
  CheckWords(info.Env(), target_offset | at, length);
  Range target = SliceArg(info, 0, target_offset, length, true);
  Range source = SliceArg(info, 2, at, length, false);
  Range before = SliceArg(info, 3, at, length, false);
  if (source->device || before->device) {
    throw CodedError(info.Env(), "ERR_UNSUPPORTED", "only ordinary memory is compared", "source");
  }
  return StartJob(
      info.Env(),
      std::make_unique<StoreChangesJob>(std::move(target), target_offset, std::move(source),
                                        std::move(before), at, length),
      "p2pdma.storeChanges");
}

// fillSlice(mapping, offset, length, pattern): words, in the host's byte order
Napi::Value FillSlice(const Napi::CallbackInfo& info) {
  const uint64_t offset = UintArg(info, 1, "offset");
  const uint64_t length = UintArg(info, 2, "length");
  const uint64_t pattern = BigUintArg(info, 3, "pattern");
  CheckWords(info.Env(), offset, length);
  Range range = SliceArg(info, 0, offset, length, true);
  return StartJob(info.Env(), std::make_unique<FillJob>(std::move(range), offset, length, pattern),
                  "p2pdma.fill");
}

// countRunsSlice(mapping, offset, length, pattern, inRun): {runs, inRun}. A run
// that the slice before ended in is not counted again.
Napi::Value CountRunsSlice(const Napi::CallbackInfo& info) {
  const uint64_t offset = UintArg(info, 1, "offset");
  const uint64_t length = UintArg(info, 2, "length");
  const uint64_t pattern = BigUintArg(info, 3, "pattern");
  const bool in_run = BoolArg(info, 4, "inRun");
  CheckWords(info.Env(), offset, length);
  Range range = SliceArg(info, 0, offset, length, false);
  return StartJob(info.Env(),
                  std::make_unique<CountRunsJob>(std::move(range), offset, length, pattern, in_run),
                  "p2pdma.countRuns");
}

}  // namespace

void InitMemoryJobs(Napi::Env env, Napi::Object exports) {
  Export<LetGoOf>(exports, "letGo");
  Export<CopySlice>(exports, "copySlice");
  Export<CopySliceNow>(exports, "copySliceNow");
  Export<PopulateSlice>(exports, "populateSlice");
  Export<PopulateSliceNow>(exports, "populateSliceNow");
  Export<StoreChangesSlice>(exports, "storeChangesSlice");
  Export<FillSlice>(exports, "fillSlice");
  Export<CountRunsSlice>(exports, "countRunsSlice");
  Napi::Array ways = Napi::Array::New(env);
  for (const WideCopy& each : WideCopies()) ways.Set(ways.Length(), each.name);
  exports.Set("wideCopies", ways);
}

}  // namespace p2pdma
