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

  Napi::Value Length(const Napi::CallbackInfo& info);
  Napi::Value View(const Napi::CallbackInfo& info);
  Napi::Value Unmap(const Napi::CallbackInfo& info);
  void ForgetDeadViews();

  std::shared_ptr<MappedRange> range_;
  // The views given out, weakly: all of them are detached by unmap().
  std::vector<Napi::Reference<Napi::ArrayBuffer>> views_;
  size_t forget_at_ = 64;
};

// The range of a Mapping object; throws ERR_INVALID_ARG_TYPE for anything else
// and ERR_CLOSED after unmap(). Hold it for as long as the memory is touched.
std::shared_ptr<MappedRange> UnwrapMapping(const Napi::Value& value);

}  // namespace p2pdma
