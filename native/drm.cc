// DRM: version, dumb buffers, PRIME and vgem's fences. The numbers and layouts
// are those of include/uapi/drm/{drm,drm_mode,vgem_drm}.h, declared here since
// those headers come with another package.
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <memory>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"

namespace p2pdma {

namespace {

struct Version {
  int major;
  int minor;
  int patch;
  size_t name_length;
  char* name;
  size_t date_length;
  char* date;
  size_t description_length;
  char* description;
};

struct DumbCreate {
  __u32 height;
  __u32 width;
  __u32 bits_per_pixel;
  __u32 flags;
  __u32 handle;
  __u32 pitch;
  __u64 size;
};

struct DumbMap {
  __u32 handle;
  __u32 pad;
  __u64 offset;
};

struct GemClose {
  __u32 handle;
  __u32 pad;
};

struct PrimeHandle {
  __u32 handle;
  __u32 flags;
  __s32 fd;
};

struct VgemAttach {
  __u32 handle;
  __u32 flags;
  __u32 fence;
  __u32 pad;
};

struct VgemSignal {
  __u32 fence;
  __u32 flags;
};

constexpr unsigned long kVersion = _IOWR('d', 0x00, Version);
constexpr unsigned long kGemClose = _IOW('d', 0x09, GemClose);
constexpr unsigned long kPrimeHandleToFd = _IOWR('d', 0x2d, PrimeHandle);
constexpr unsigned long kPrimeFdToHandle = _IOWR('d', 0x2e, PrimeHandle);
constexpr unsigned long kVgemAttach = _IOWR('d', 0x41, VgemAttach);
constexpr unsigned long kVgemSignal = _IOW('d', 0x42, VgemSignal);
constexpr unsigned long kDumbCreate = _IOWR('d', 0xb2, DumbCreate);
constexpr unsigned long kDumbMap = _IOWR('d', 0xb3, DumbMap);

template <typename Request>
void Call(Napi::Env env, const std::shared_ptr<OwnedFd>& device, unsigned long number,
          Request* request, const char* name) {
  if (ioctl(device->get(), number, request) < 0) throw SystemError(env, errno, name);
}

// drmDriver(device): the driver's name
Napi::Value DrmDriver(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  char name[64];
  Version version = {};
  version.name = name;
  version.name_length = sizeof(name);
  Call(env, device, kVersion, &version, "ioctl DRM_IOCTL_VERSION");
  return Napi::String::New(env, name, std::min(version.name_length, sizeof(name)));
}

// drmDumbCreate(device, width, height, bitsPerPixel): {handle, pitch, size}
Napi::Value DrmDumbCreate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  DumbCreate request = {};
  request.width = Uint32Arg(info, 1, "width");
  request.height = Uint32Arg(info, 2, "height");
  request.bits_per_pixel = Uint32Arg(info, 3, "bitsPerPixel");
  Napi::Object result = Napi::Object::New(env);
  Call(env, device, kDumbCreate, &request, "ioctl DRM_IOCTL_MODE_CREATE_DUMB");
  try {
    result.Set("handle", static_cast<double>(request.handle));
    result.Set("pitch", static_cast<double>(request.pitch));
    result.Set("size", static_cast<double>(request.size));
  } catch (...) {
    GemClose close = {request.handle, 0};
    ioctl(device->get(), kGemClose, &close);
    throw;
  }
  return result;
}

// drmDumbMap(device, handle): the offset to give to mmap of the device
Napi::Value DrmDumbMap(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  DumbMap request = {Uint32Arg(info, 1, "handle"), 0, 0};
  Call(env, device, kDumbMap, &request, "ioctl DRM_IOCTL_MODE_MAP_DUMB");
  return Napi::Number::New(env, static_cast<double>(request.offset));
}

// drmGemClose(device, handle)
Napi::Value DrmGemClose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  GemClose request = {Uint32Arg(info, 1, "handle"), 0};
  Call(env, device, kGemClose, &request, "ioctl DRM_IOCTL_GEM_CLOSE");
  return env.Undefined();
}

// drmHandleToFd(device, handle): an Fd, readable and writable
Napi::Value DrmHandleToFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  PrimeHandle request = {Uint32Arg(info, 1, "handle"), O_CLOEXEC | O_RDWR, -1};
  Call(env, device, kPrimeHandleToFd, &request, "ioctl DRM_IOCTL_PRIME_HANDLE_TO_FD");
  return WrapFd(env, OwnedFd(request.fd));
}

// drmFdToHandle(device, dmaBuf): a handle, perhaps one that is held already
Napi::Value DrmFdToHandle(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  const auto dma_buf = UnwrapFd(info[1]);
  PrimeHandle request = {0, 0, dma_buf->get()};
  Call(env, device, kPrimeFdToHandle, &request, "ioctl DRM_IOCTL_PRIME_FD_TO_HANDLE");
  return Napi::Number::New(env, request.handle);
}

// vgemAttach(device, handle, flags): the fence's number. A fence that is there
// already is EBUSY (vgem_fence.c, vgem_fence_attach_ioctl).
Napi::Value VgemAttachFence(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  VgemAttach request = {Uint32Arg(info, 1, "handle"), Uint32Arg(info, 2, "flags"), 0, 0};
  Call(env, device, kVgemAttach, &request, "ioctl DRM_IOCTL_VGEM_FENCE_ATTACH");
  return Napi::Number::New(env, request.fence);
}

// vgemSignal(device, fence): ETIMEDOUT where it had expired
Napi::Value VgemSignalFence(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  VgemSignal request = {Uint32Arg(info, 1, "fence"), 0};
  Call(env, device, kVgemSignal, &request, "ioctl DRM_IOCTL_VGEM_FENCE_SIGNAL");
  return env.Undefined();
}

}  // namespace

void InitDrm(Napi::Env, Napi::Object exports) {
  Export<DrmDriver>(exports, "drmDriver");
  Export<DrmDumbCreate>(exports, "drmDumbCreate");
  Export<DrmDumbMap>(exports, "drmDumbMap");
  Export<DrmGemClose>(exports, "drmGemClose");
  Export<DrmHandleToFd>(exports, "drmHandleToFd");
  Export<DrmFdToHandle>(exports, "drmFdToHandle");
  Export<VgemAttachFence>(exports, "vgemAttach");
  Export<VgemSignalFence>(exports, "vgemSignal");
}

}  // namespace p2pdma
