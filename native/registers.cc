// A device's registers: one load or store of exactly the width asked for,
// never split, merged or reordered with those before and after it.
#include <cstdint>
#include <memory>

#include "init.h"
#include "mapping.h"
#include "support/args.h"
#include "support/env_state.h"
#include "support/guard.h"
#include "support/mmio.h"

namespace p2pdma {

namespace {

class Registers : public Napi::ObjectWrap<Registers> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Registers",
                       {InstanceMethod<&Registers::Read<uint8_t>>("read8"),
                        InstanceMethod<&Registers::Read<uint16_t>>("read16"),
                        InstanceMethod<&Registers::Read<uint32_t>>("read32"),
                        InstanceMethod<&Registers::Read<uint64_t>>("read64"),
                        InstanceMethod<&Registers::Write<uint8_t>>("write8"),
                        InstanceMethod<&Registers::Write<uint16_t>>("write16"),
                        InstanceMethod<&Registers::Write<uint32_t>>("write32"),
                        InstanceMethod<&Registers::Write<uint64_t>>("write64"),
                        InstanceMethod<&Registers::Close>("close")});
  }

  explicit Registers(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Registers>(info) {
    range_ = UnwrapMapping(info[0]);
    if (!range_->writable) {
      throw CodedError(info.Env(), "ERR_INVALID_STATE", "the mapping is read-only");
    }
  }

 private:
  // Of a register of type T; throws unless it is whole, aligned and inside.
  template <typename T>
  volatile T* At(const Napi::CallbackInfo& info) {
    return Guarded(info.Env(), [&] { return Find<T>(info); });
  }

  template <typename T>
  volatile T* Find(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!range_ || range_->retired) {
      throw CodedError(env, "ERR_CLOSED", "the registers are closed");
    }
    double offset = -1;
    napi_get_value_double(env, info[0], &offset);
    const bool inside = offset >= 0 && offset <= static_cast<double>(range_->size) - sizeof(T);
    const auto at = inside ? static_cast<size_t>(offset) : 1;
    if (!inside || static_cast<double>(at) != offset || at % sizeof(T) != 0) {
      throw CodedError(env, "ERR_OUT_OF_RANGE",
                       "offset must be that of a register, and a multiple of its size", "offset");
    }
    return reinterpret_cast<volatile T*>(range_->data + at);
  }

  template <typename T>
  Napi::Value Read(const Napi::CallbackInfo& info) {
    const T value = *At<T>(info);
    AfterRegisterLoad();
    if constexpr (sizeof(T) == 8) {
      return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(value));
    } else {
      return Napi::Number::New(info.Env(), value);
    }
  }

  template <typename T>
  Napi::Value Write(const Napi::CallbackInfo& info) {
    volatile T* const target = At<T>(info);
    T value;
    if constexpr (sizeof(T) == 8) {
      value = BigUintArg(info, 1, "value");
    } else {
      value = static_cast<T>(UintArg(info, 1, "value", static_cast<T>(~T{0})));
    }
    BeforeRegisterStore();
    *target = value;
    return info.Env().Undefined();
  }

  Napi::Value Close(const Napi::CallbackInfo& info) {
    range_.reset();
    return info.Env().Undefined();
  }

  std::shared_ptr<MappedRange> range_;
};

}  // namespace

void InitRegisters(Napi::Env env, Napi::Object exports) {
  exports.Set("Registers", Registers::Define(env));
}

}  // namespace p2pdma
