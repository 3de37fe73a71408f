// /dev/vfio/vfio and its groups, type1: include/uapi/linux/vfio.h,
// drivers/vfio/{group,container,vfio_iommu_type1}.c.
#include <errno.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "fd.h"
#include "init.h"
#include "mapping.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"
#include "support/vfio_capabilities.h"

namespace p2pdma {

namespace {

// vfioApiVersion(container)
Napi::Value ApiVersion(const Napi::CallbackInfo& info) {
  const int version = ioctl(UnwrapFd(info[0])->get(), VFIO_GET_API_VERSION);
  if (version < 0) throw SystemError(info.Env(), errno, "ioctl VFIO_GET_API_VERSION");
  return Napi::Number::New(info.Env(), version);
}

// vfioCheckExtension(container, extension)
Napi::Value CheckExtension(const Napi::CallbackInfo& info) {
  const auto container = UnwrapFd(info[0]);
  const int extension = static_cast<int>(Uint32Arg(info, 1, "extension", INT32_MAX));
  const int present = ioctl(container->get(), VFIO_CHECK_EXTENSION, extension);
  if (present < 0) throw SystemError(info.Env(), errno, "ioctl VFIO_CHECK_EXTENSION");
  return Napi::Boolean::New(info.Env(), present > 0);
}

// vfioSetIommu(container, type)
Napi::Value SetIommu(const Napi::CallbackInfo& info) {
  const auto container = UnwrapFd(info[0]);
  const int type = static_cast<int>(Uint32Arg(info, 1, "type", INT32_MAX));
  if (ioctl(container->get(), VFIO_SET_IOMMU, type) < 0) {
    throw SystemError(info.Env(), errno, "ioctl VFIO_SET_IOMMU");
  }
  return info.Env().Undefined();
}

// vfioGroupStatus(group): the flags
Napi::Value GroupStatus(const Napi::CallbackInfo& info) {
  vfio_group_status status = {sizeof(status), 0};
  if (ioctl(UnwrapFd(info[0])->get(), VFIO_GROUP_GET_STATUS, &status) < 0) {
    throw SystemError(info.Env(), errno, "ioctl VFIO_GROUP_GET_STATUS");
  }
  return Napi::Number::New(info.Env(), status.flags);
}

// vfioGroupSetContainer(group, container)
Napi::Value GroupSetContainer(const Napi::CallbackInfo& info) {
  const auto group = UnwrapFd(info[0]);
  const auto container = UnwrapFd(info[1]);
  int number = container->get();
  if (ioctl(group->get(), VFIO_GROUP_SET_CONTAINER, &number) < 0) {
    throw SystemError(info.Env(), errno, "ioctl VFIO_GROUP_SET_CONTAINER");
  }
  return info.Env().Undefined();
}

// vfioGroupGetDevice(group, name): an Fd. Runs the device's open, which may
// reset it, so it is a job.
Napi::Value GroupGetDevice(const Napi::CallbackInfo& info) {
  auto group = UnwrapFd(info[0]);
  std::string name = StringArg(info, 1, "name");
  return StartFdSyscall(info.Env(), "ioctl VFIO_GROUP_GET_DEVICE_FD",
                        [group = std::move(group), name = std::move(name)] {
                          const int fd =
                              ioctl(group->get(), VFIO_GROUP_GET_DEVICE_FD, name.c_str());
                          return fd < 0 ? -errno : fd;
                        });
}

// vfioIommuInfo(container): {pageSizes: bigint, ranges: [start, end, ...] or
// null where the kernel names none, mappings: left, or null}
Napi::Value IommuInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto container = UnwrapFd(info[0]);
  std::vector<std::byte> memory(sizeof(vfio_iommu_type1_info));
  for (;;) {
    vfio_iommu_type1_info head = {};
    head.argsz = static_cast<__u32>(memory.size());
    memcpy(memory.data(), &head, sizeof(head));
    if (ioctl(container->get(), VFIO_IOMMU_GET_INFO, memory.data()) < 0) {
      throw SystemError(env, errno, "ioctl VFIO_IOMMU_GET_INFO");
    }
    memcpy(&head, memory.data(), sizeof(head));
    if (head.argsz <= memory.size()) break;
    if (head.argsz > kMostInfo) throw SystemError(env, EOVERFLOW, "ioctl VFIO_IOMMU_GET_INFO");
    memory.assign(head.argsz, std::byte{0});
  }
  vfio_iommu_type1_info head;
  memcpy(&head, memory.data(), sizeof(head));
  Napi::Object result = Napi::Object::New(env);
  result.Set("pageSizes", Napi::BigInt::New(env, static_cast<uint64_t>(head.iova_pgsizes)));
  result.Set("ranges", env.Null());
  result.Set("mappings", env.Null());
  const size_t first = (head.flags & VFIO_IOMMU_INFO_CAPS) != 0 ? head.cap_offset : 0;
  ForEachCapability(memory, first, [&](uint16_t id, Bytes capability) {
    if (id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
      vfio_iommu_type1_info_cap_iova_range ranges;
      if (!ReadAt(capability, 0, &ranges)) return;
      Napi::Array list = Napi::Array::New(env);
      vfio_iova_range range;
      for (uint32_t i = 0;
           i < ranges.nr_iovas && ReadAt(capability, sizeof(ranges) + i * sizeof(range), &range);
           ++i) {
        list.Set(2 * i, Napi::BigInt::New(env, static_cast<uint64_t>(range.start)));
        list.Set(2 * i + 1, Napi::BigInt::New(env, static_cast<uint64_t>(range.end)));
      }
      result.Set("ranges", list);
    } else if (id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
      vfio_iommu_type1_info_dma_avail available;
      if (!ReadAt(capability, 0, &available)) return;
      result.Set("mappings", Napi::Number::New(env, available.avail));
    }
  });
  return result;
}

struct MapRequest {
  std::shared_ptr<OwnedFd> container;
  std::shared_ptr<MappedRange> range;
  vfio_iommu_type1_dma_map map;

  int Run() const {
    vfio_iommu_type1_dma_map request = map;
    return ioctl(container->get(), VFIO_IOMMU_MAP_DMA, &request) < 0 ? -errno : 0;
  }
};

// (container, iova, mapping, offset, size, flags)
MapRequest MapArgs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  MapRequest request = {UnwrapFd(info[0]), UnwrapMapping(info[2]), {}};
  const uint64_t iova = UintArg(info, 1, "iova");
  const uint64_t offset = UintArg(info, 3, "offset");
  const uint64_t size = UintArg(info, 4, "size");
  const uint32_t flags = Uint32Arg(info, 5, "flags");
  if (!request.range->Contains(offset, size)) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "the range must lie inside the mapping", "size");
  }
  request.map.argsz = sizeof(request.map);
  request.map.flags = flags;
  request.map.vaddr = reinterpret_cast<uintptr_t>(request.range->data + offset);
  request.map.iova = iova;
  request.map.size = size;
  return request;
}

// vfioMapDma(...): on the event loop
Napi::Value MapDma(const Napi::CallbackInfo& info) {
  const int result = MapArgs(info).Run();
  if (result < 0) throw SystemError(info.Env(), -result, "ioctl VFIO_IOMMU_MAP_DMA");
  return info.Env().Undefined();
}

// vfioStartMapDma(...): a promise
Napi::Value StartMapDma(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "ioctl VFIO_IOMMU_MAP_DMA",
                      [request = MapArgs(info)] { return request.Run(); });
}

struct UnmapRequest {
  std::shared_ptr<OwnedFd> container;
  vfio_iommu_type1_dma_unmap unmap;

  // Nothing, or less, mapped there is no error to the kernel; it is to us.
  int Run() const {
    vfio_iommu_type1_dma_unmap request = unmap;
    if (ioctl(container->get(), VFIO_IOMMU_UNMAP_DMA, &request) < 0) return -errno;
    return request.size == unmap.size ? 0 : -ENOENT;
  }
};

// (container, iova, size)
UnmapRequest UnmapArgs(const Napi::CallbackInfo& info) {
  UnmapRequest request = {UnwrapFd(info[0]), {}};
  request.unmap.argsz = sizeof(request.unmap);
  request.unmap.iova = UintArg(info, 1, "iova");
  request.unmap.size = UintArg(info, 2, "size");
  return request;
}

// vfioUnmapDma(...): on the event loop; ENOENT where less was mapped
Napi::Value UnmapDma(const Napi::CallbackInfo& info) {
  const int result = UnmapArgs(info).Run();
  if (result < 0) throw SystemError(info.Env(), -result, "ioctl VFIO_IOMMU_UNMAP_DMA");
  return info.Env().Undefined();
}

// vfioStartUnmapDma(...): a promise
Napi::Value StartUnmapDma(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "ioctl VFIO_IOMMU_UNMAP_DMA",
                      [request = UnmapArgs(info)] { return request.Run(); });
}

}  // namespace

void InitVfioContainer(Napi::Env, Napi::Object exports) {
  const auto set = [&]<auto function>(const char* name) { Export<function>(exports, name); };
  set.operator()<ApiVersion>("vfioApiVersion");
  set.operator()<CheckExtension>("vfioCheckExtension");
  set.operator()<SetIommu>("vfioSetIommu");
  set.operator()<GroupStatus>("vfioGroupStatus");
  set.operator()<GroupSetContainer>("vfioGroupSetContainer");
  set.operator()<GroupGetDevice>("vfioGroupGetDevice");
  set.operator()<IommuInfo>("vfioIommuInfo");
  set.operator()<MapDma>("vfioMapDma");
  set.operator()<StartMapDma>("vfioStartMapDma");
  set.operator()<UnmapDma>("vfioUnmapDma");
  set.operator()<StartUnmapDma>("vfioStartUnmapDma");
}

}  // namespace p2pdma
