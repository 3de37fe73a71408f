// The JavaScript object that owns one CPU mapping.
#pragma once

#include <napi.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "support/mapped_range.h"

namespace p2pdma {

class Mapping : public Napi::ObjectWrap<Mapping> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit Mapping(const Napi::CallbackInfo& info);

 private:
  friend std::shared_ptr<MappedRange> UnwrapMapping(const Napi::Value& value);
  friend std::shared_ptr<MappedRange> TakeMapping(const Napi::Value& value);

  Napi::Value Length(const Napi::CallbackInfo& info);
  Napi::Value View(const Napi::CallbackInfo& info);
  Napi::Value MakeView(const Napi::CallbackInfo& info);
  Napi::Value Unmap(const Napi::CallbackInfo& info);
  std::shared_ptr<MappedRange> Take(Napi::Env env);
  void ForgetDeadViews();

  std::shared_ptr<MappedRange> range_;
  // The views given out, weakly: all of them are detached by unmap().
  std::vector<Napi::Reference<Napi::ArrayBuffer>> views_;
  size_t forget_at_ = 64;
};

// The range of a Mapping object; throws ERR_INVALID_ARG_TYPE for anything else
// and ERR_CLOSED after unmap(). Hold it for as long as the memory is touched.
std::shared_ptr<MappedRange> UnwrapMapping(const Napi::Value& value);

// Closes a Mapping object without unmapping yet: detaches the views and hands
// the range over, null if it was closed. Whoever takes it calls LetGo().
std::shared_ptr<MappedRange> TakeMapping(const Napi::Value& value);

// The end of a mapping's use. Returns 0 or an errno. Any thread.
int LetGo(std::shared_ptr<MappedRange> range);

}  // namespace p2pdma
