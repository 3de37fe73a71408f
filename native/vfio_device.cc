// A VFIO device: include/uapi/linux/vfio.h, drivers/vfio/vfio_main.c,
// drivers/vfio/pci/vfio_pci_core.c.
#include <errno.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"
#include "support/vfio_abi.h"
#include "support/vfio_capabilities.h"

namespace p2pdma {

namespace {

// vfioDeviceInfo(device): {flags, regions, interrupts}
Napi::Value DeviceInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  vfio_device_info device = {};
  device.argsz = sizeof(device);
  if (ioctl(UnwrapFd(info[0])->get(), VFIO_DEVICE_GET_INFO, &device) < 0) {
    throw SystemError(env, errno, "ioctl VFIO_DEVICE_GET_INFO");
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("flags", device.flags);
  result.Set("regions", device.num_regions);
  result.Set("interrupts", device.num_irqs);
  return result;
}

// vfioRegionInfo(device, index): {flags, size, offset, areas, type, subtype,
// msixMappable}. `areas`: [offset, size, ...] of what can be mapped where that
// is not all of it, else null. `type` and `subtype`: null for a BAR.
Napi::Value RegionInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  const uint32_t index = Uint32Arg(info, 1, "index");
  std::vector<std::byte> memory(sizeof(vfio_region_info));
  vfio_region_info head = {};
  for (;;) {
    head = {};
    head.argsz = static_cast<__u32>(memory.size());
    head.index = index;
    memcpy(memory.data(), &head, sizeof(head));
    if (ioctl(device->get(), VFIO_DEVICE_GET_REGION_INFO, memory.data()) < 0) {
      throw SystemError(env, errno, "ioctl VFIO_DEVICE_GET_REGION_INFO");
    }
    memcpy(&head, memory.data(), sizeof(head));
    if (head.argsz <= memory.size()) break;
    if (head.argsz > kMostInfo)
      throw SystemError(env, EOVERFLOW, "ioctl VFIO_DEVICE_GET_REGION_INFO");
    memory.assign(head.argsz, std::byte{0});
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("flags", head.flags);
  result.Set("size", static_cast<double>(head.size));
  result.Set("offset", static_cast<double>(head.offset));
  for (const char* name : {"areas", "type", "subtype"}) result.Set(name, env.Null());
  result.Set("msixMappable", false);
  const size_t first = (head.flags & VFIO_REGION_INFO_FLAG_CAPS) != 0 ? head.cap_offset : 0;
  ForEachCapability(memory, first, [&](uint16_t id, Bytes capability) {
    if (id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
      vfio_region_info_cap_sparse_mmap sparse;
      if (!ReadAt(capability, 0, &sparse)) return;
      Napi::Array areas = Napi::Array::New(env);
      vfio_region_sparse_mmap_area area;
      for (uint32_t i = 0;
           i < sparse.nr_areas && ReadAt(capability, sizeof(sparse) + i * sizeof(area), &area);
           ++i) {
        areas.Set(2 * i, static_cast<double>(area.offset));
        areas.Set(2 * i + 1, static_cast<double>(area.size));
      }
      result.Set("areas", areas);
    } else if (id == VFIO_REGION_INFO_CAP_TYPE) {
      vfio_region_info_cap_type type;
      if (!ReadAt(capability, 0, &type)) return;
      result.Set("type", type.type);
      result.Set("subtype", type.subtype);
    } else if (id == VFIO_REGION_INFO_CAP_MSIX_MAPPABLE) {
      result.Set("msixMappable", true);
    }
  });
  return result;
}

// vfioInterruptInfo(device, index): {flags, count}
Napi::Value InterruptInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  vfio_irq_info irq = {};
  irq.argsz = sizeof(irq);
  irq.index = Uint32Arg(info, 1, "index");
  if (ioctl(device->get(), VFIO_DEVICE_GET_IRQ_INFO, &irq) < 0) {
    throw SystemError(env, errno, "ioctl VFIO_DEVICE_GET_IRQ_INFO");
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("flags", irq.flags);
  result.Set("count", irq.count);
  return result;
}

// vfioSetInterrupts(device, index, start, count, flags, eventfds): `eventfds`
// an array of `count` Fds or nulls (null: taken away) where the flags have
// DATA_EVENTFD; not looked at otherwise
Napi::Value SetInterrupts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = UnwrapFd(info[0]);
  vfio_irq_set head = {};
  head.index = Uint32Arg(info, 1, "index");
  head.start = Uint32Arg(info, 2, "start", 4096);
  head.count = Uint32Arg(info, 3, "count", 4096);
  head.flags = Uint32Arg(info, 4, "flags");
  std::vector<std::shared_ptr<OwnedFd>> held;
  std::vector<__s32> numbers;
  if ((head.flags & VFIO_IRQ_SET_DATA_BOOL) != 0) {
    throw CodedError(env, "ERR_INVALID_ARG_VALUE", "DATA_BOOL is not supported", "flags");
  }
  if ((head.flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0) {
    if (!info[5].IsArray() || info[5].As<Napi::Array>().Length() != head.count) {
      throw CodedError(env, "ERR_INVALID_ARG_TYPE", "eventfds must be an array of that length",
                       "eventfds");
    }
    for (uint32_t i = 0; i < head.count; ++i) {
      const Napi::Value each = info[5].As<Napi::Array>().Get(i);
      if (!each.IsNull()) held.push_back(UnwrapFd(each));
      numbers.push_back(each.IsNull() ? -1 : held.back()->get());
    }
  }
  std::vector<std::byte> memory(sizeof(head) + numbers.size() * sizeof(__s32));
  head.argsz = static_cast<__u32>(memory.size());
  memcpy(memory.data(), &head, sizeof(head));
  if (!numbers.empty()) {
    memcpy(memory.data() + sizeof(head), numbers.data(), numbers.size() * sizeof(__s32));
  }
  if (ioctl(device->get(), VFIO_DEVICE_SET_IRQS, memory.data()) < 0) {
    throw SystemError(env, errno, "ioctl VFIO_DEVICE_SET_IRQS");
  }
  return env.Undefined();
}

// vfioReset(device): a promise; a function-level reset takes 100 ms and more
Napi::Value Reset(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "ioctl VFIO_DEVICE_RESET", [device = UnwrapFd(info[0])] {
    return ioctl(device->get(), VFIO_DEVICE_RESET) < 0 ? -errno : 0;
  });
}

struct ExportRequest {
  std::shared_ptr<OwnedFd> device;
  // struct vfio_device_feature, its payload and the ranges.
  std::vector<std::byte> memory;

  int Run() {
    const int fd = ioctl(device->get(), VFIO_DEVICE_FEATURE, memory.data());
    return fd < 0 ? -errno : fd;
  }
};

// (device, region, openFlags, ranges): `ranges` a BigUint64Array [offset,
// length, ...]
ExportRequest ExportArgs(const Napi::CallbackInfo& info) {
  ExportRequest request = {UnwrapFd(info[0]), {}};
  abi::DmaBufFeature feature = {};
  feature.region_index = Uint32Arg(info, 1, "region");
  feature.open_flags = Uint32Arg(info, 2, "openFlags");
  if (!info[3].IsTypedArray() ||
      info[3].As<Napi::TypedArray>().TypedArrayType() != napi_biguint64_array ||
      info[3].As<Napi::TypedArray>().ElementLength() % 2 != 0) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", "ranges must be a BigUint64Array of pairs",
                     "ranges");
  }
  const auto ranges = info[3].As<Napi::BigUint64Array>();
  feature.nr_ranges = static_cast<__u32>(ranges.ElementLength() / 2);
  vfio_device_feature head = {};
  std::vector<std::byte>& memory = request.memory;
  memory.resize(sizeof(head) + sizeof(feature) + ranges.ByteLength());
  head.argsz = static_cast<__u32>(memory.size());
  head.flags = VFIO_DEVICE_FEATURE_GET | abi::kFeatureDmaBuf;
  memcpy(memory.data(), &head, sizeof(head));
  memcpy(memory.data() + sizeof(head), &feature, sizeof(feature));
  if (ranges.ByteLength() > 0) {
    memcpy(memory.data() + sizeof(head) + sizeof(feature), ranges.Data(), ranges.ByteLength());
  }
  return request;
}

// vfioExportDmaBuf(...): an Fd; on the event loop
Napi::Value ExportDmaBuf(const Napi::CallbackInfo& info) {
  const int fd = ExportArgs(info).Run();
  if (fd < 0) throw SystemError(info.Env(), -fd, "ioctl VFIO_DEVICE_FEATURE");
  return WrapFd(info.Env(), OwnedFd(fd));
}

// vfioStartExportDmaBuf(...): a promise of an Fd; a reset makes it wait
Napi::Value StartExportDmaBuf(const Napi::CallbackInfo& info) {
  return StartFdSyscall(info.Env(), "ioctl VFIO_DEVICE_FEATURE",
                        [request = ExportArgs(info)]() mutable { return request.Run(); });
}

std::pair<std::byte*, size_t> BytesArg(const Napi::CallbackInfo& info, size_t index) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", "bytes must be a Uint8Array", "bytes");
  }
  auto array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<std::byte*>(array.Data()), array.ByteLength()};
}

// vfioRead(device, offset, bytes): of a region that is no memory, config space
// for one; as many bytes as the kernel gives
Napi::Value Read(const Napi::CallbackInfo& info) {
  const auto device = UnwrapFd(info[0]);
  const uint64_t offset = UintArg(info, 1, "offset");
  const auto [data, length] = BytesArg(info, 2);
  const ssize_t done = pread(device->get(), data, length, static_cast<off_t>(offset));
  if (done < 0) throw SystemError(info.Env(), errno, "pread");
  return Napi::Number::New(info.Env(), static_cast<double>(done));
}

// vfioWrite(device, offset, bytes)
Napi::Value Write(const Napi::CallbackInfo& info) {
  const auto device = UnwrapFd(info[0]);
  const uint64_t offset = UintArg(info, 1, "offset");
  const auto [data, length] = BytesArg(info, 2);
  const ssize_t done = pwrite(device->get(), data, length, static_cast<off_t>(offset));
  if (done < 0) throw SystemError(info.Env(), errno, "pwrite");
  return Napi::Number::New(info.Env(), static_cast<double>(done));
}

}  // namespace

void InitVfioDevice(Napi::Env, Napi::Object exports) {
  const auto set = [&]<auto function>(const char* name) { Export<function>(exports, name); };
  set.operator()<DeviceInfo>("vfioDeviceInfo");
  set.operator()<RegionInfo>("vfioRegionInfo");
  set.operator()<InterruptInfo>("vfioInterruptInfo");
  set.operator()<SetInterrupts>("vfioSetInterrupts");
  set.operator()<Reset>("vfioReset");
  set.operator()<ExportDmaBuf>("vfioExportDmaBuf");
  set.operator()<StartExportDmaBuf>("vfioStartExportDmaBuf");
  set.operator()<Read>("vfioRead");
  set.operator()<Write>("vfioWrite");
}

}  // namespace p2pdma
