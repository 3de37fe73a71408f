// sync_file: include/uapi/linux/sync_file.h, drivers/dma-buf/sync_file.c.
#include <errno.h>
#include <linux/sync_file.h>
#include <string.h>
#include <sys/ioctl.h>

#include <vector>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"

// Linux 6.6; missing from older headers.
#ifndef SYNC_IOC_SET_DEADLINE
struct sync_set_deadline {
  __u64 deadline_ns;
  __u64 pad;
};
#define SYNC_IOC_SET_DEADLINE _IOW(SYNC_IOC_MAGIC, 5, struct sync_set_deadline)
#endif

namespace p2pdma {

namespace {

Napi::String Text(Napi::Env env, const char* field, size_t size) {
  return Napi::String::New(env, field, strnlen(field, size));
}

// syncFileMerge(fd, other, name): an Fd; the name is cut at 31 bytes
Napi::Value SyncFileMerge(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const auto other = UnwrapFd(info[1]);
  const std::string name = StringArg(info, 2, "name");
  sync_merge_data request = {};
  name.copy(request.name, sizeof(request.name) - 1);
  request.fd2 = other->get();
  if (ioctl(fd->get(), SYNC_IOC_MERGE, &request) < 0) {
    throw SystemError(env, errno, "ioctl SYNC_IOC_MERGE");
  }
  // SYNC_IOC_MERGE makes its descriptor close-on-exec (sync_file_ioctl_merge).
  return WrapFd(env, OwnedFd(request.fence));
}

// syncFileInfo(fd, capacity): {name, status, count, fences}. `count` is how
// many there are; they are filled in only where `capacity` holds all of them.
Napi::Value SyncFileInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const uint32_t capacity = Uint32Arg(info, 1, "capacity", 1 << 16);
  std::vector<sync_fence_info> fences(capacity);
  sync_file_info request = {};
  request.num_fences = capacity;
  request.sync_fence_info = reinterpret_cast<uintptr_t>(fences.data());
  if (ioctl(fd->get(), SYNC_IOC_FILE_INFO, &request) < 0) {
    throw SystemError(env, errno, "ioctl SYNC_IOC_FILE_INFO");
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("name", Text(env, request.name, sizeof(request.name)));
  result.Set("status", static_cast<double>(request.status));
  result.Set("count", static_cast<double>(request.num_fences));
  const uint32_t filled = request.num_fences <= capacity ? request.num_fences : 0;
  Napi::Array list = Napi::Array::New(env, filled);
  for (uint32_t i = 0; i < filled; ++i) {
    const sync_fence_info& fence = fences[i];
    Napi::Object item = Napi::Object::New(env);
    item.Set("driver", Text(env, fence.driver_name, sizeof(fence.driver_name)));
    item.Set("timeline", Text(env, fence.obj_name, sizeof(fence.obj_name)));
    item.Set("status", static_cast<double>(fence.status));
    item.Set("timestampNs", Napi::BigInt::New(env, static_cast<uint64_t>(fence.timestamp_ns)));
    list.Set(i, item);
  }
  result.Set("fences", list);
  return result;
}

// syncFileSetDeadline(fd, deadlineNs, pad)
Napi::Value SyncFileSetDeadline(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const sync_set_deadline request = {BigUintArg(info, 1, "deadlineNs"), UintArg(info, 2, "pad")};
  if (ioctl(fd->get(), SYNC_IOC_SET_DEADLINE, &request) < 0) {
    throw SystemError(env, errno, "ioctl SYNC_IOC_SET_DEADLINE");
  }
  return env.Undefined();
}

}  // namespace

void InitSyncFile(Napi::Env, Napi::Object exports) {
  Export<SyncFileMerge>(exports, "syncFileMerge");
  Export<SyncFileInfo>(exports, "syncFileInfo");
  Export<SyncFileSetDeadline>(exports, "syncFileSetDeadline");
}

}  // namespace p2pdma
