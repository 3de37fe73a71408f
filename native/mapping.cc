#include "mapping.h"

#include <unistd.h>

#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/env_state.h"
#include "support/function.h"

namespace p2pdma {

namespace {

constexpr napi_type_tag kMappingTag = {0x83d2b6d0c45f4f1e, 0xb1f7740ea2c96d38};

using Range = std::shared_ptr<MappedRange>;

void ReleaseRange(napi_env, void*, void* hint) { delete static_cast<Range*>(hint); }

// mapFd(fd, offset, length, writable, populate, lead, device): the mapping begins
// at `offset`; `lead` bytes before it are mapped too, and hidden. `device`: what is
// behind it is a device's memory, see support/wide_copy.h.
Napi::Value MapFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const uint64_t offset = UintArg(info, 1, "offset");
  const uint64_t length = UintArg(info, 2, "length");
  const bool writable = BoolArg(info, 3, "write");
  const bool populate = BoolArg(info, 4, "populate");
  const uint64_t lead = UintArg(info, 5, "lead", offset);
  const bool device = BoolArg(info, 6, "device");
  void* const address = mmap(nullptr, lead + length, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                             MAP_SHARED | (populate ? MAP_POPULATE : 0), fd->get(),
                             static_cast<off_t>(offset - lead));
  if (address == MAP_FAILED) throw SystemError(env, errno, "mmap");
  Range range = OwnRange(address, lead, length, writable, device);
  return EnvState::Of(env).mapping_constructor.New({Napi::External<Range>::New(env, &range)});
}

}  // namespace

Mapping::Mapping(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Mapping>(info) {
  if (!info[0].IsExternal()) {
    throw CodedError(info.Env(), "ERR_ILLEGAL_CONSTRUCTOR", "Mapping has no public constructor");
  }
  range_ = *info[0].As<Napi::External<Range>>().Data();
  info.This().As<Napi::Object>().TypeTag(&kMappingTag);
}

Napi::Function Mapping::Define(Napi::Env env) {
  return DefineClass(
      env, "Mapping",
      {InstanceAccessor<&Mapping::Length>("length"), InstanceMethod<&Mapping::View>("view"),
       InstanceMethod<&Mapping::Unmap>("unmap")});
}

// 0 after unmap().
Napi::Value Mapping::Length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), range_ ? static_cast<double>(range_->size) : 0);
}

// view(offset, length): an ArrayBuffer over part of the range. The range is
// held twice for it, since each can outlive the other: by the backing store (a
// transfer moves it to another ArrayBuffer) and by the object (a request in
// the thread pool, fs.read for one, keeps the object alive while a detach has
// already freed the backing store).
Napi::Value Mapping::View(const Napi::CallbackInfo& info) {
  return Guarded(info.Env(), [&] { return MakeView(info); });
}

Napi::Value Mapping::MakeView(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!range_) throw CodedError(env, "ERR_CLOSED", "Mapping is closed");
  const uint64_t offset = UintArg(info, 0, "offset");
  const uint64_t length = UintArg(info, 1, "length");
  if (!range_->Contains(offset, length)) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "the view must lie inside the mapping", "length");
  }
  if (!range_->writable) {
    throw CodedError(env, "ERR_INVALID_STATE", "a read-only mapping has no views: map it writable");
  }
  if (range_->device) {
    throw CodedError(env, "ERR_UNSUPPORTED", "a device's memory has no views");
  }
  if (length == 0) return Napi::ArrayBuffer::New(env, 0);

  // Before there is a view: one that is not known would not be detached.
  if (views_.size() >= forget_at_) ForgetDeadViews();
  views_.reserve(views_.size() + 1);
  auto store = std::make_unique<Range>(range_);
  napi_value value = nullptr;
  NAPI_THROW_IF_FAILED(env,
                       napi_create_external_arraybuffer(env, range_->data + offset, length,
                                                        ReleaseRange, store.get(), &value),
                       Napi::Value());
  static_cast<void>(store.release());

  auto object = std::make_unique<Range>(range_);
  NAPI_THROW_IF_FAILED(env,
                       napi_add_finalizer(env, value, nullptr, ReleaseRange, object.get(), nullptr),
                       Napi::Value());
  static_cast<void>(object.release());

  views_.push_back(Napi::Weak(Napi::ArrayBuffer(env, value)));
  return Napi::Value(env, value);
}

// unmap(): returns whether it did anything.
Napi::Value Mapping::Unmap(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!range_) return Napi::Boolean::New(env, false);
  const int error = LetGo(Take(env));
  if (error != 0) throw SystemError(env, error, "mmap");
  return Napi::Boolean::New(env, true);
}

std::shared_ptr<MappedRange> Mapping::Take(Napi::Env env) {
  for (auto& view : views_) {
    if (view.IsEmpty()) continue;
    const Napi::ArrayBuffer buffer = view.Value();
    if (!buffer.IsEmpty() && !buffer.IsDetached()) napi_detach_arraybuffer(env, buffer);
  }
  views_.clear();
  return std::exchange(range_, nullptr);
}

void Mapping::ForgetDeadViews() {
  std::erase_if(views_, [](auto& view) { return view.IsEmpty() || view.Value().IsEmpty(); });
  forget_at_ = views_.size() * 2 < 64 ? 64 : views_.size() * 2;
}

std::shared_ptr<MappedRange> UnwrapMapping(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kMappingTag)) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "mapping must be a Mapping", "mapping");
  }
  const Mapping* object = Mapping::Unwrap(value.As<Napi::Object>());
  if (!object->range_) throw CodedError(env, "ERR_CLOSED", "Mapping is closed");
  return object->range_;
}

std::shared_ptr<MappedRange> TakeMapping(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kMappingTag)) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "mapping must be a Mapping", "mapping");
  }
  return Mapping::Unwrap(value.As<Napi::Object>())->Take(env);
}

int LetGo(std::shared_ptr<MappedRange> range) {
  // Nobody else holds it: the destructor's munmap is enough.
  return !range || range.use_count() == 1 ? 0 : range->Retire();
}

void InitMapping(Napi::Env env, Napi::Object exports) {
  EnvState::Of(env).mapping_constructor = Napi::Persistent(Mapping::Define(env));
  Export<MapFd>(exports, "mapFd");
  exports.Set("pageSize", Napi::Number::New(env, static_cast<double>(sysconf(_SC_PAGESIZE))));
}

}  // namespace p2pdma
