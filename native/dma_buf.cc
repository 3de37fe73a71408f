// The ioctls of a dma-buf: include/uapi/linux/dma-buf.h,
// drivers/dma-buf/dma-buf.c.
#include <errno.h>
#include <linux/dma-buf.h>
#include <sys/ioctl.h>

#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"

// Linux 6.0; missing from older headers.
#ifndef DMA_BUF_IOCTL_EXPORT_SYNC_FILE
struct dma_buf_export_sync_file {
  __u32 flags;
  __s32 fd;
};
struct dma_buf_import_sync_file {
  __u32 flags;
  __s32 fd;
};
#define DMA_BUF_IOCTL_EXPORT_SYNC_FILE _IOWR(DMA_BUF_BASE, 2, struct dma_buf_export_sync_file)
#define DMA_BUF_IOCTL_IMPORT_SYNC_FILE _IOW(DMA_BUF_BASE, 3, struct dma_buf_import_sync_file)
#endif

namespace p2pdma {

namespace {

// dmaBufSync(fd, flags): a promise, since it waits for fences.
Napi::Value DmaBufSync(const Napi::CallbackInfo& info) {
  auto fd = UnwrapFd(info[0]);
  const uint64_t flags = UintArg(info, 1, "flags");
  return StartSyscall(info.Env(), "ioctl DMA_BUF_IOCTL_SYNC", [fd = std::move(fd), flags] {
    const dma_buf_sync sync = {flags};
    return ioctl(fd->get(), DMA_BUF_IOCTL_SYNC, &sync) < 0 ? -errno : 0;
  });
}

// dmaBufSetName(fd, name)
Napi::Value DmaBufSetName(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const std::string name = StringArg(info, 1, "name");
  if (ioctl(fd->get(), DMA_BUF_SET_NAME_B, name.c_str()) < 0) {
    throw SystemError(env, errno, "ioctl DMA_BUF_SET_NAME");
  }
  return env.Undefined();
}

// dmaBufExportSyncFile(fd, flags): an Fd
Napi::Value DmaBufExportSyncFile(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  dma_buf_export_sync_file request = {Uint32Arg(info, 1, "flags"), -1};
  if (ioctl(fd->get(), DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &request) < 0) {
    throw SystemError(env, errno, "ioctl DMA_BUF_IOCTL_EXPORT_SYNC_FILE");
  }
  return WrapFd(env, OwnedFd(request.fd));
}

// dmaBufImportSyncFile(fd, flags, syncFile)
Napi::Value DmaBufImportSyncFile(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto fd = UnwrapFd(info[0]);
  const uint32_t flags = Uint32Arg(info, 1, "flags");
  const auto sync_file = UnwrapFd(info[2]);
  const dma_buf_import_sync_file request = {flags, sync_file->get()};
  if (ioctl(fd->get(), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &request) < 0) {
    throw SystemError(env, errno, "ioctl DMA_BUF_IOCTL_IMPORT_SYNC_FILE");
  }
  return env.Undefined();
}

}  // namespace

void InitDmaBuf(Napi::Env, Napi::Object exports) {
  Export<DmaBufSync>(exports, "dmaBufSync");
  Export<DmaBufSetName>(exports, "dmaBufSetName");
  Export<DmaBufExportSyncFile>(exports, "dmaBufExportSyncFile");
  Export<DmaBufImportSyncFile>(exports, "dmaBufImportSyncFile");
}

}  // namespace p2pdma
