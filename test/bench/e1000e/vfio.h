// A PCI device bound to vfio-pci, alone in a type1 container of its own.
#ifndef TEST_BENCH_E1000E_VFIO_H_
#define TEST_BENCH_E1000E_VFIO_H_

#include <stddef.h>
#include <stdint.h>

struct vfio {
  const char* bdf;
  int container;
  int group;
  int device;
};

// What fails ends the program with a message.
_Noreturn void die(const char* format, ...) __attribute__((format(printf, 1, 2)));

void vfio_open(struct vfio* vfio, const char* bdf);
void vfio_close(struct vfio* vfio);

// Allows the device memory accesses and, with `master`, DMA.
void vfio_enable(struct vfio* vfio, int master);

// Maps a BAR; `*size` is what it has.
void* vfio_map_region(struct vfio* vfio, unsigned index, size_t* size);

void vfio_map_dma(struct vfio* vfio, uint64_t iova, void* memory, size_t size);
void vfio_unmap_dma(struct vfio* vfio, uint64_t iova, size_t size);

// Shared memory of its own, with every page present.
void* allocate(size_t size);

uint64_t now_ns(void);

#endif  // TEST_BENCH_E1000E_VFIO_H_
