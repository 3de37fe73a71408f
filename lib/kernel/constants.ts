/** Numbers of the kernel's user interface. */

/** fcntl F_ADD_SEALS (include/uapi/linux/fcntl.h). */
export const F_SEAL_SEAL = 0x0001
export const F_SEAL_SHRINK = 0x0002
export const F_SEAL_GROW = 0x0004
export const F_SEAL_WRITE = 0x0008
export const F_SEAL_FUTURE_WRITE = 0x0010
export const F_SEAL_EXEC = 0x0020

/** memfd_create (include/uapi/linux/memfd.h). */
export const MFD_ALLOW_SEALING = 0x0002
export const MFD_HUGETLB = 0x0004
/** The huge page's size, as a power of two, goes here. */
export const MFD_HUGE_SHIFT = 26
