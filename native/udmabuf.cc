// /dev/udmabuf: include/uapi/linux/udmabuf.h, drivers/dma-buf/udmabuf.c. The
// new descriptor is the ioctl's return value.
#include <errno.h>
#include <linux/udmabuf.h>
#include <string.h>
#include <sys/ioctl.h>

#include <utility>
#include <vector>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"

namespace p2pdma {

namespace {

// udmabufCreate(device, memfd, offset, size): a promise of an Fd
Napi::Value UdmabufCreate(const Napi::CallbackInfo& info) {
  auto device = UnwrapFd(info[0]);
  auto memfd = UnwrapFd(info[1]);
  const uint64_t offset = UintArg(info, 2, "offset");
  const uint64_t size = UintArg(info, 3, "size");
  return StartFdSyscall(info.Env(), "ioctl UDMABUF_CREATE",
                        [device = std::move(device), memfd = std::move(memfd), offset, size] {
                          const udmabuf_create request = {static_cast<__u32>(memfd->get()),
                                                          UDMABUF_FLAGS_CLOEXEC, offset, size};
                          const int fd = ioctl(device->get(), UDMABUF_CREATE, &request);
                          return fd < 0 ? -errno : fd;
                        });
}

// Many times the kernel's own list_limit (drivers/dma-buf/udmabuf.c).
constexpr uint32_t kMostItems = 1 << 16;

// udmabufCreateList(device, memfds, offsets, sizes): three arrays of one
// length; a promise of an Fd
Napi::Value UdmabufCreateList(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto device = UnwrapFd(info[0]);
  if (!info[1].IsArray() || !info[2].IsTypedArray() || !info[3].IsTypedArray()) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "items must be an array", "items");
  }
  const auto memfds = info[1].As<Napi::Array>();
  const auto offsets = info[2].As<Napi::TypedArray>();
  const auto sizes = info[3].As<Napi::TypedArray>();
  const uint32_t count = memfds.Length();
  if (count > kMostItems) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "items are too many for one call", "items");
  }
  if (offsets.TypedArrayType() != napi_biguint64_array || offsets.ElementLength() != count ||
      sizes.TypedArrayType() != napi_biguint64_array || sizes.ElementLength() != count) {
    throw CodedError(env, "ERR_INVALID_ARG_TYPE", "items must be arrays of one length", "items");
  }
  std::vector<std::shared_ptr<OwnedFd>> held;
  std::vector<std::byte> request(sizeof(udmabuf_create_list) + count * sizeof(udmabuf_create_item));
  const udmabuf_create_list head = {UDMABUF_FLAGS_CLOEXEC, count};
  memcpy(request.data(), &head, sizeof(head));
  for (uint32_t i = 0; i < count; ++i) {
    held.push_back(UnwrapFd(memfds.Get(i)));
    const udmabuf_create_item item = {static_cast<__u32>(held.back()->get()), 0,
                                      offsets.As<Napi::BigUint64Array>()[i],
                                      sizes.As<Napi::BigUint64Array>()[i]};
    memcpy(request.data() + sizeof(head) + i * sizeof(item), &item, sizeof(item));
  }
  return StartFdSyscall(
      env, "ioctl UDMABUF_CREATE_LIST",
      [device = std::move(device), held = std::move(held), request = std::move(request)] {
        const int fd = ioctl(device->get(), UDMABUF_CREATE_LIST, request.data());
        return fd < 0 ? -errno : fd;
      });
}

}  // namespace

void InitUdmabuf(Napi::Env, Napi::Object exports) {
  Export<UdmabufCreate>(exports, "udmabufCreate");
  Export<UdmabufCreateList>(exports, "udmabufCreateList");
}

}  // namespace p2pdma
