// Checked arguments: the last guard. The typed classes check first and name
// things in the caller's words; nothing that gets here may crash the process.
#pragma once

#include <napi.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "support/error.h"

namespace p2pdma {

// A whole number from 0 to `max` (2^53 - 1 if left out).
inline uint64_t UintArg(const Napi::CallbackInfo& info, size_t index, const char* name,
                        uint64_t max = (uint64_t{1} << 53) - 1) {
  const Napi::Value value = info[index];
  if (!value.IsNumber()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be a number",
                     name);
  }
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0) || number != std::floor(number) || number > static_cast<double>(max)) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE",
                     std::string(name) + " must be a whole number from 0 to " + std::to_string(max),
                     name);
  }
  return static_cast<uint64_t>(number);
}

inline uint32_t Uint32Arg(const Napi::CallbackInfo& info, size_t index, const char* name,
                          uint32_t max = UINT32_MAX) {
  return static_cast<uint32_t>(UintArg(info, index, name, max));
}

inline bool BoolArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsBoolean()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be a boolean",
                     name);
  }
  return value.As<Napi::Boolean>().Value();
}

// Text without a NUL inside.
inline std::string StringArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsString()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be a string",
                     name);
  }
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_VALUE",
                     std::string(name) + " must not contain a NUL", name);
  }
  return text;
}

// An unsigned 64-bit bigint.
inline uint64_t BigUintArg(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsBigInt()) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be a bigint",
                     name);
  }
  bool lossless = false;
  const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE",
                     std::string(name) + " must be from 0 to 2^64 - 1", name);
  }
  return number;
}

}  // namespace p2pdma
