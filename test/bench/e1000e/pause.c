// What a move costs the receiver: its buffer goes from device memory to system
// memory, or back, under the same IOVA, with receives posted into it.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "copy.h"
#include "nic.h"
#include "peer.h"

#define BUFFER_IOVA UINT64_C(0x1000000)

enum { kBar = 2 };

struct rig {
  struct nic sender;
  struct nic receiver;
  uint8_t* frame;  // Mapped for the sender.
  uint64_t next;   // Where the next receive is posted, bytes.
  uint64_t size;
};

// One frame through the buffer where it is now, so that each mapping is known to work.
static void prove(struct rig* rig, const uint8_t* buffer) {
  const uint8_t* const at = buffer + rig->next;
  memset(rig->frame, rig->frame[0] + 1, kFrame);
  nic_send(&rig->sender, BUFFER_IOVA, 0, kFrame, 1);
  while (nic_reap_received(&rig->receiver, kFrame) == 0) continue;
  while (nic_reap_sent(&rig->sender) == 0) continue;
  errno = 0;
  for (uint32_t i = 0; i < kFrame; i++) {
    if (((const volatile uint8_t*)at)[i] != rig->frame[0]) die("a frame is not where it should be");
  }
  // As before there are as many receives posted.
  rig->next = (rig->next + kReceiveBuffer) % rig->size;
}

static void post_one(struct rig* rig, uint64_t at) {
  nic_receive(&rig->receiver, BUFFER_IOVA + at, kReceiveBuffer, 1);
}

static void move_once(struct rig* rig, uint8_t* from, uint8_t* to, const char* text) {
  const uint64_t size = rig->size;
  struct vfio* const vfio = &rig->receiver.vfio;
  const uint64_t start = now_ns();
  nic_receiver_off(&rig->receiver);
  const uint64_t stopped = now_ns();
  vfio_unmap_dma(vfio, BUFFER_IOVA, size);
  const uint64_t unmapped = now_ns();
  wide_copy(to, from, size);
  const uint64_t copied = now_ns();
  vfio_map_dma(vfio, BUFFER_IOVA, to, size);
  const uint64_t mapped = now_ns();
  nic_receiver_on(&rig->receiver);
  const uint64_t end = now_ns();
  printf("%s\"stop\":%" PRIu64 ",\"unmap\":%" PRIu64 ",\"copy\":%" PRIu64 ",\"map\":%" PRIu64
         ",\"restart\":%" PRIu64 ",\"total\":%" PRIu64 "}",
         text, stopped - start, unmapped - stopped, copied - unmapped, mapped - copied,
         end - mapped, end - start);
}

void run_pause(const struct settings* settings) {
  struct rig rig = {.size = settings->size};
  struct vfio memory;
  size_t bar_size;
  vfio_open(&memory, settings->memory);
  vfio_enable(&memory, 0);
  uint8_t* const bar = vfio_map_region(&memory, kBar, &bar_size);
  errno = 0;
  if (rig.size > bar_size) die("BAR%d has only %zu bytes", kBar, bar_size);
  uint8_t* here = settings->from_bar ? bar : allocate(rig.size);
  rig.frame = allocate(4096);
  nic_open(&rig.sender, settings->sender, settings->depth);
  nic_open(&rig.receiver, settings->receiver, settings->depth);
  vfio_map_dma(&rig.sender.vfio, BUFFER_IOVA, rig.frame, 4096);
  vfio_map_dma(&rig.receiver.vfio, BUFFER_IOVA, here, rig.size);
  nic_receiver_on(&rig.receiver);
  uint32_t receives = (uint32_t)(rig.size / kReceiveBuffer);
  if (receives > settings->depth) receives = settings->depth;
  nic_receive(&rig.receiver, BUFFER_IOVA, kReceiveBuffer, receives);
  uint64_t behind = (uint64_t)receives * kReceiveBuffer % rig.size;
  prove(&rig, here);

  printf("{\"mode\":\"pause\",\"size\":%" PRIu64 ",\"moves\":[", rig.size);
  for (uint32_t move = 0; move < settings->moves; move++) {
    const int in_bar = here == bar;
    // As the library does: the new memory first, and only then is anything stopped.
    uint8_t* const there = in_bar ? allocate(rig.size) : bar;
    printf("%s", move == 0 ? "" : ",");
    move_once(
        &rig, here, there,
        in_bar ? "{\"from\":\"bar\",\"to\":\"system\"," : "{\"from\":\"system\",\"to\":\"bar\",");
    if (!in_bar) munmap(here, rig.size);
    here = there;
    post_one(&rig, behind);
    behind = (behind + kReceiveBuffer) % rig.size;
    prove(&rig, here);
  }
  printf("]}\n");
  nic_close(&rig.receiver);
  nic_close(&rig.sender);
  vfio_close(&memory);
}
