// dma-heaps: include/uapi/linux/dma-heap.h, drivers/dma-buf/dma-heap.c.
#include <errno.h>
#include <linux/dma-heap.h>
#include <sys/ioctl.h>

#include <utility>

#include "fd.h"
#include "init.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"

namespace p2pdma {

namespace {

// dmaHeapAlloc(heap, length, fdIn, fdFlags, heapFlags): a promise of an Fd
Napi::Value DmaHeapAlloc(const Napi::CallbackInfo& info) {
  auto heap = UnwrapFd(info[0]);
  const dma_heap_allocation_data request = {UintArg(info, 1, "length"), Uint32Arg(info, 2, "fdIn"),
                                            Uint32Arg(info, 3, "fdFlags"),
                                            UintArg(info, 4, "heapFlags")};
  return StartFdSyscall(info.Env(), "ioctl DMA_HEAP_IOCTL_ALLOC",
                        [heap = std::move(heap), request] {
                          dma_heap_allocation_data data = request;
                          if (ioctl(heap->get(), DMA_HEAP_IOCTL_ALLOC, &data) < 0) return -errno;
                          return static_cast<int>(data.fd);
                        });
}

}  // namespace

void InitDmaHeap(Napi::Env, Napi::Object exports) { Export<DmaHeapAlloc>(exports, "dmaHeapAlloc"); }

}  // namespace p2pdma
