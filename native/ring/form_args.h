// Forms as arguments: plain objects, each number of which is checked.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ring/forms.h"

namespace p2pdma::ring {

class Fields {
 public:
  explicit Fields(const Napi::Value& value) : object_(value.As<Napi::Object>()) {}

  // A whole number up to `max`; ERR_OUT_OF_RANGE.
  uint32_t Uint(const char* name, uint32_t max = UINT32_MAX) const;
  // `missing` where it is left out.
  uint32_t Uint(const char* name, uint32_t max, uint32_t missing) const {
    return Has(name) ? Uint(name, max) : missing;
  }
  // The same, and even; or a power of two.
  uint32_t EvenWord(const char* name, uint32_t max) const;
  uint32_t PowerOfTwo(const char* name, uint32_t missing) const;

  Napi::Value Get(const char* name) const { return object_.Get(name); }
  bool Has(const char* name) const { return !object_.Get(name).IsUndefined(); }

 private:
  [[noreturn]] void Fail(const char* name, const char* what) const;

  const Napi::Object object_;
};

Fields ObjectArg(const Napi::CallbackInfo& info, size_t index, const char* name);

// Of descriptors whose completions are in a ring of their own, or in themselves.
Form FormArg(const Napi::CallbackInfo& info, size_t index, bool completes_apart);

// One at least.
std::vector<Operation> OperationsArg(const Napi::CallbackInfo& info, size_t index);

CompletionForm CompletionFormOf(const Fields& fields, uint32_t max_entries);

}  // namespace p2pdma::ring
