// Frames per second: one thread posts receives, posts sends as far as there
// are receives to take them, and reaps both.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "nic.h"
#include "peer.h"

#define BUFFER_IOVA UINT64_C(0x1000000)

static void fill(uint8_t* frame, uint32_t number) {
  memset(frame, 0xff, 6);  // To everybody.
  memset(frame + 6, 0x02, 6);
  frame[12] = 0x88;  // An EtherType for local experiments.
  frame[13] = 0xb5;
  for (uint32_t i = 14; i < kFrame; i++) frame[i] = (uint8_t)(number + i);
}

static void check(const uint8_t* sent, const uint8_t* received, uint32_t slots) {
  errno = 0;
  for (uint32_t slot = 0; slot < slots; slot++) {
    const size_t at = (size_t)slot * kReceiveBuffer;
    if (memcmp(sent + at, received + at, kFrame) != 0) die("frame %u has other bytes", slot);
  }
}

void run_frames(const struct settings* settings) {
  const uint32_t batch = settings->batch;
  errno = 0;
  if (batch > settings->depth) die("--batch must be at most --depth");
  if (settings->frames % batch != 0) die("--frames must be a multiple of --batch");
  // Whole batches, so that a frame's place in both buffers is the same.
  const uint32_t slots = settings->depth / batch * batch;
  const size_t bytes = ((size_t)slots * kReceiveBuffer + 4095) & ~(size_t)4095;
  uint8_t* const source = allocate(bytes);
  uint8_t* const target = allocate(bytes);
  for (uint32_t slot = 0; slot < slots; slot++) {
    fill(source + (size_t)slot * kReceiveBuffer, slot);
  }
  struct nic sender;
  struct nic receiver;
  nic_open(&sender, settings->sender, settings->depth);
  nic_open(&receiver, settings->receiver, settings->depth);
  vfio_map_dma(&sender.vfio, BUFFER_IOVA, source, bytes);
  vfio_map_dma(&receiver.vfio, BUFFER_IOVA, target, bytes);
  nic_receiver_on(&receiver);
  nic_missed(&receiver);

  uint32_t posted = 0;
  uint32_t received = 0;
  uint32_t sent = 0;
  uint32_t done = 0;
  const uint64_t start = now_ns();
  while (received < settings->frames || done < settings->frames) {
    while (posted < settings->frames && posted - received + batch <= slots) {
      nic_receive(&receiver, BUFFER_IOVA + (uint64_t)(posted % slots) * kReceiveBuffer,
                  kReceiveBuffer, batch);
      posted += batch;
    }
    if (sent + batch <= posted && sent - done + batch <= slots) {
      nic_send(&sender, BUFFER_IOVA + (uint64_t)(sent % slots) * kReceiveBuffer, kReceiveBuffer,
               kFrame, batch);
      sent += batch;
    }
    done += nic_reap_sent(&sender);
    received += nic_reap_received(&receiver, kFrame);
  }
  const uint64_t ns = now_ns() - start;

  check(source, target, slots < settings->frames ? slots : settings->frames);
  printf("{\"mode\":\"frames\",\"batch\":%u,\"depth\":%u,\"frames\":%u,\"ns\":%" PRIu64
         ",\"missed\":%u}\n",
         batch, settings->depth, settings->frames, ns, nic_missed(&receiver));
  nic_close(&receiver);
  nic_close(&sender);
}
