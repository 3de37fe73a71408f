#include "vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void die(const char* format, ...) {
  const int error = errno;
  va_list args;
  va_start(args, format);
  fprintf(stderr, "e1000e-peer: ");
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, error != 0 ? ": %s\n" : "\n", strerror(error));
  exit(1);
}

static int group_of(const char* bdf) {
  char path[128];
  char target[256];
  snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
  const ssize_t length = readlink(path, target, sizeof(target) - 1);
  if (length < 0) die("%s has no IOMMU group", bdf);
  target[length] = '\0';
  return atoi(strrchr(target, '/') + 1);
}

void vfio_open(struct vfio* vfio, const char* bdf) {
  char path[64];
  snprintf(path, sizeof(path), "/dev/vfio/%d", group_of(bdf));
  vfio->bdf = bdf;
  vfio->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
  if (vfio->container < 0) die("/dev/vfio/vfio");
  vfio->group = open(path, O_RDWR | O_CLOEXEC);
  if (vfio->group < 0) die("%s", path);
  struct vfio_group_status status = {.argsz = sizeof(status)};
  if (ioctl(vfio->group, VFIO_GROUP_GET_STATUS, &status) != 0) die("%s: status", path);
  if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) die("%s is not viable", path);
  if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &vfio->container) != 0) die("set container");
  if (ioctl(vfio->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) != 0) die("set type1v2");
  vfio->device = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
  if (vfio->device < 0) die("%s: get device", bdf);
}

void vfio_close(struct vfio* vfio) {
  close(vfio->device);
  close(vfio->group);
  close(vfio->container);
}

static struct vfio_region_info region_info(struct vfio* vfio, unsigned index) {
  struct vfio_region_info info = {.argsz = sizeof(info), .index = index};
  if (ioctl(vfio->device, VFIO_DEVICE_GET_REGION_INFO, &info) != 0) {
    die("%s: region %u", vfio->bdf, index);
  }
  return info;
}

void vfio_enable(struct vfio* vfio, int master) {
  const struct vfio_region_info config = region_info(vfio, VFIO_PCI_CONFIG_REGION_INDEX);
  const off_t at = (off_t)config.offset + PCI_COMMAND;
  uint16_t command;
  if (pread(vfio->device, &command, sizeof(command), at) != sizeof(command)) die("read command");
  command |= PCI_COMMAND_MEMORY | (master ? PCI_COMMAND_MASTER : 0);
  if (pwrite(vfio->device, &command, sizeof(command), at) != sizeof(command)) die("write command");
}

void* vfio_map_region(struct vfio* vfio, unsigned index, size_t* size) {
  const struct vfio_region_info info = region_info(vfio, index);
  errno = 0;
  if ((info.flags & VFIO_REGION_INFO_FLAG_MMAP) == 0)
    die("%s: BAR%u has no mmap", vfio->bdf, index);
  void* const memory =
      mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, vfio->device, (off_t)info.offset);
  if (memory == MAP_FAILED) die("%s: mmap of BAR%u", vfio->bdf, index);
  *size = info.size;
  return memory;
}

void vfio_map_dma(struct vfio* vfio, uint64_t iova, void* memory, size_t size) {
  struct vfio_iommu_type1_dma_map map = {
      .argsz = sizeof(map),
      .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
      .vaddr = (uintptr_t)memory,
      .iova = iova,
      .size = size,
  };
  if (ioctl(vfio->container, VFIO_IOMMU_MAP_DMA, &map) != 0) die("map 0x%llx", (long long)iova);
}

void vfio_unmap_dma(struct vfio* vfio, uint64_t iova, size_t size) {
  struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap), .iova = iova, .size = size};
  if (ioctl(vfio->container, VFIO_IOMMU_UNMAP_DMA, &unmap) != 0) {
    die("unmap 0x%llx", (long long)iova);
  }
  errno = 0;
  if (unmap.size != size) die("unmapped only %llu bytes", (long long)unmap.size);
}

void* allocate(size_t size) {
  const int fd = memfd_create("e1000e-peer", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)size) != 0) die("memfd of %zu bytes", size);
  void* const memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) die("mmap of %zu bytes", size);
  close(fd);
  return memory;
}

uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}
