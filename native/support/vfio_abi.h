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

}  // namespace p2pdma::abi
