// /dev/iommu, and the device files of VFIO that go with it:
// include/uapi/linux/iommufd.h, drivers/iommu/iommufd/{ioas,io_pagetable}.c,
// drivers/vfio/device_cdev.c.
#include <errno.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "fd.h"
#include "init.h"
#include "mapping.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"
#include "support/vfio_abi.h"

namespace p2pdma {

namespace {

// iommufdAllocate(iommufd): the id of a new address space
Napi::Value Allocate(const Napi::CallbackInfo& info) {
  abi::IoasAlloc request = {sizeof(request), 0, 0};
  if (ioctl(UnwrapFd(info[0])->get(), abi::kIoasAlloc, &request) < 0) {
    throw SystemError(info.Env(), errno, "ioctl IOMMU_IOAS_ALLOC");
  }
  return Napi::Number::New(info.Env(), request.out_ioas_id);
}

constexpr uint32_t kMostRanges = 1 << 16;

// iommufdRanges(iommufd, space): {alignment: bigint, ranges: [start, end, ...]}
Napi::Value Ranges(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto iommufd = UnwrapFd(info[0]);
  const uint32_t space = Uint32Arg(info, 1, "space");
  std::vector<abi::IovaRange> ranges(8);
  abi::IoasIovaRanges request;
  for (;;) {
    request = {sizeof(request),
               space,
               static_cast<__u32>(ranges.size()),
               0,
               reinterpret_cast<uintptr_t>(ranges.data()),
               0};
    if (ioctl(iommufd->get(), abi::kIoasIovaRanges, &request) == 0) break;
    if (errno != EMSGSIZE || request.num_iovas <= ranges.size() ||
        request.num_iovas > kMostRanges) {
      throw SystemError(env, errno, "ioctl IOMMU_IOAS_IOVA_RANGES");
    }
    ranges.resize(request.num_iovas);
  }
  Napi::Object result = Napi::Object::New(env);
  Napi::Array list = Napi::Array::New(env);
  const uint32_t count = std::min(request.num_iovas, static_cast<__u32>(ranges.size()));
  for (uint32_t i = 0; i < count; ++i) {
    list.Set(2 * i, Napi::BigInt::New(env, static_cast<uint64_t>(ranges[i].start)));
    list.Set(2 * i + 1, Napi::BigInt::New(env, static_cast<uint64_t>(ranges[i].last)));
  }
  result.Set("ranges", list);
  result.Set("alignment",
             Napi::BigInt::New(env, static_cast<uint64_t>(request.out_iova_alignment)));
  return result;
}

// vfioBindIommufd(device, iommufd): a promise. Runs the device's open, which
// may reset it.
Napi::Value Bind(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "ioctl VFIO_DEVICE_BIND_IOMMUFD",
                      [device = UnwrapFd(info[0]), iommufd = UnwrapFd(info[1])] {
                        abi::BindIommufd request = {sizeof(request), 0, iommufd->get(), 0};
                        return ioctl(device->get(), abi::kBindIommufd, &request) < 0 ? -errno : 0;
                      });
}

// vfioAttachIommufd(device, space): a promise
Napi::Value Attach(const Napi::CallbackInfo& info) {
  const uint32_t space = Uint32Arg(info, 1, "space");
  return StartSyscall(
      info.Env(), "ioctl VFIO_DEVICE_ATTACH_IOMMUFD_PT", [device = UnwrapFd(info[0]), space] {
        abi::AttachIommufdPt request = {sizeof(request), 0, space};
        return ioctl(device->get(), abi::kAttachIommufdPt, &request) < 0 ? -errno : 0;
      });
}

struct MapRequest {
  std::shared_ptr<OwnedFd> iommufd;
  std::shared_ptr<MappedRange> range;
  abi::IoasMap map;

  int Run() const {
    abi::IoasMap request = map;
    return ioctl(iommufd->get(), abi::kIoasMap, &request) < 0 ? -errno : 0;
  }
};

// (iommufd, space, iova, mapping, offset, size, flags)
MapRequest MapArgs(const Napi::CallbackInfo& info) {
  MapRequest request = {UnwrapFd(info[0]), UnwrapMapping(info[3]), {}};
  request.map.size = sizeof(request.map);
  request.map.ioas_id = Uint32Arg(info, 1, "space");
  request.map.iova = UintArg(info, 2, "iova");
  const uint64_t offset = UintArg(info, 4, "offset");
  request.map.length = UintArg(info, 5, "size");
  request.map.flags = Uint32Arg(info, 6, "flags");
  if (!request.range->Contains(offset, request.map.length)) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE", "the range must lie inside the mapping",
                     "size");
  }
  request.map.user_va = reinterpret_cast<uintptr_t>(request.range->data + offset);
  return request;
}

struct MapFileRequest {
  std::shared_ptr<OwnedFd> iommufd;
  std::shared_ptr<OwnedFd> file;
  abi::IoasMapFile map;

  int Run() const {
    abi::IoasMapFile request = map;
    return ioctl(iommufd->get(), abi::kIoasMapFile, &request) < 0 ? -errno : 0;
  }
};

// (iommufd, space, iova, file, offset, size, flags): of a dma-buf
MapFileRequest MapFileArgs(const Napi::CallbackInfo& info) {
  MapFileRequest request = {UnwrapFd(info[0]), UnwrapFd(info[3]), {}};
  request.map.size = sizeof(request.map);
  request.map.ioas_id = Uint32Arg(info, 1, "space");
  request.map.iova = UintArg(info, 2, "iova");
  request.map.fd = request.file->get();
  request.map.start = UintArg(info, 4, "offset");
  request.map.length = UintArg(info, 5, "size");
  request.map.flags = Uint32Arg(info, 6, "flags");
  return request;
}

struct UnmapRequest {
  std::shared_ptr<OwnedFd> iommufd;
  abi::IoasUnmap unmap;

  // Less mapped there is no error to the kernel; it is to us.
  int Run() const {
    abi::IoasUnmap request = unmap;
    if (ioctl(iommufd->get(), abi::kIoasUnmap, &request) < 0) return -errno;
    return request.length == unmap.length ? 0 : -ENOENT;
  }
};

// (iommufd, space, iova, size)
UnmapRequest UnmapArgs(const Napi::CallbackInfo& info) {
  UnmapRequest request = {UnwrapFd(info[0]), {}};
  request.unmap.size = sizeof(request.unmap);
  request.unmap.ioas_id = Uint32Arg(info, 1, "space");
  request.unmap.iova = UintArg(info, 2, "iova");
  request.unmap.length = UintArg(info, 3, "size");
  return request;
}

template <auto arguments>
constexpr const char* kName = nullptr;
template <>
constexpr const char* kName<MapArgs> = "ioctl IOMMU_IOAS_MAP";
template <>
constexpr const char* kName<MapFileArgs> = "ioctl IOMMU_IOAS_MAP_FILE";
template <>
constexpr const char* kName<UnmapArgs> = "ioctl IOMMU_IOAS_UNMAP";

// On the event loop.
template <auto arguments>
Napi::Value Now(const Napi::CallbackInfo& info) {
  const int result = arguments(info).Run();
  if (result < 0) throw SystemError(info.Env(), -result, kName<arguments>);
  return info.Env().Undefined();
}

// A promise.
template <auto arguments>
Napi::Value Start(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), kName<arguments>,
                      [request = arguments(info)] { return request.Run(); });
}

}  // namespace

void InitIommufd(Napi::Env, Napi::Object exports) {
  const auto set = [&]<auto function>(const char* name) { Export<function>(exports, name); };
  set.operator()<Allocate>("iommufdAllocate");
  set.operator()<Ranges>("iommufdRanges");
  set.operator()<Bind>("vfioBindIommufd");
  set.operator()<Attach>("vfioAttachIommufd");
  set.operator()<Now<MapArgs>>("iommufdMap");
  set.operator()<Start<MapArgs>>("iommufdStartMap");
  set.operator()<Now<MapFileArgs>>("iommufdMapFile");
  set.operator()<Start<MapFileArgs>>("iommufdStartMapFile");
  set.operator()<Now<UnmapArgs>>("iommufdUnmap");
  set.operator()<Start<UnmapArgs>>("iommufdStartUnmap");
}

}  // namespace p2pdma
