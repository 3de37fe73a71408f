// What VFIO and iommufd have gained since the oldest headers that we build
// with (Linux 6.1): numbers and layouts of include/uapi/linux/vfio.h and
// include/uapi/linux/iommufd.h.
#pragma once

#include <linux/types.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

namespace p2pdma::abi {

// VFIO_DEVICE_FEATURE_DMA_BUF (6.19): the descriptor is the ioctl's value.
inline constexpr __u32 kFeatureDmaBuf = 11;

struct DmaBufRange {
  __u64 offset;
  __u64 length;
};

struct DmaBufFeature {
  __u32 region_index;
  __u32 open_flags;
  __u32 flags;
  __u32 nr_ranges;
  // DmaBufRange[nr_ranges]
};

// VFIO_DEVICE_BIND_IOMMUFD and VFIO_DEVICE_ATTACH_IOMMUFD_PT (6.6).
struct BindIommufd {
  __u32 argsz;
  __u32 flags;
  __s32 iommufd;
  __u32 out_devid;
};

struct AttachIommufdPt {
  __u32 argsz;
  __u32 flags;
  __u32 pt_id;
};

inline constexpr unsigned long kBindIommufd = _IO(VFIO_TYPE, VFIO_BASE + 18);
inline constexpr unsigned long kAttachIommufdPt = _IO(VFIO_TYPE, VFIO_BASE + 19);

// iommufd (6.2). Every struct begins with its own size.
inline constexpr unsigned long kIoasAlloc = _IO(';', 0x81);
inline constexpr unsigned long kIoasIovaRanges = _IO(';', 0x84);
inline constexpr unsigned long kIoasMap = _IO(';', 0x85);
inline constexpr unsigned long kIoasUnmap = _IO(';', 0x86);
// 6.13 for a memfd, 6.20 for a BAR's dma-buf.
inline constexpr unsigned long kIoasMapFile = _IO(';', 0x8f);

struct IoasAlloc {
  __u32 size;
  __u32 flags;
  __u32 out_ioas_id;
};

struct IovaRange {
  __aligned_u64 start;
  __aligned_u64 last;
};

struct IoasIovaRanges {
  __u32 size;
  __u32 ioas_id;
  __u32 num_iovas;
  __u32 reserved;
  __aligned_u64 allowed_iovas;
  __aligned_u64 out_iova_alignment;
};

struct IoasMap {
  __u32 size;
  __u32 flags;
  __u32 ioas_id;
  __u32 reserved;
  __aligned_u64 user_va;
  __aligned_u64 length;
  __aligned_u64 iova;
};

struct IoasMapFile {
  __u32 size;
  __u32 flags;
  __u32 ioas_id;
  __s32 fd;
  __aligned_u64 start;
  __aligned_u64 length;
  __aligned_u64 iova;
};

struct IoasUnmap {
  __u32 size;
  __u32 ioas_id;
  __aligned_u64 iova;
  __aligned_u64 length;
};

static_assert(sizeof(BindIommufd) == 16 && sizeof(AttachIommufdPt) == 12);
static_assert(sizeof(IoasAlloc) == 12 && sizeof(IoasIovaRanges) == 32);
static_assert(sizeof(IoasMap) == 40 && sizeof(IoasMapFile) == 40 && sizeof(IoasUnmap) == 24);

}  // namespace p2pdma::abi
