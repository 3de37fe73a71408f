#include "nic.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// 82574 datasheet, chapter 10.
enum {
  kCtrl = 0x0000,
  kStatus = 0x0008,
  kIcr = 0x00c0,
  kImc = 0x00d8,
  kRctl = 0x0100,
  kTctl = 0x0400,
  kTipg = 0x0410,
  kRdfpc = 0x2430,
  kRdbal = 0x2800,
  kRdbah = 0x2804,
  kRdlen = 0x2808,
  kRdh = 0x2810,
  kRdt = 0x2818,
  kTdbal = 0x3800,
  kTdbah = 0x3804,
  kTdlen = 0x3808,
  kTdh = 0x3810,
  kTdt = 0x3818,
  kTxdctl = 0x3828,
  kMpc = 0x4010,
  kRnbc = 0x40a0,
  kMta = 0x5200,
};

#define BIT(n) (UINT32_C(1) << (n))
#define CTRL_GIO_MASTER_DISABLE BIT(2)
#define CTRL_SLU BIT(6)
#define CTRL_RST BIT(26)
#define STATUS_LU BIT(1)
#define STATUS_GIO_MASTER_ENABLE BIT(19)
#define RCTL_EN BIT(1)
#define RCTL_UPE BIT(3)
#define RCTL_MPE BIT(4)
#define RCTL_BAM BIT(15)
#define RCTL_SECRC BIT(26)
#define TCTL_EN BIT(1)
#define TCTL_PSP BIT(3)
#define TXDCTL_RESERVED BIT(22)  // "Must be set" (10.2.6.8).
#define TXDCTL_GRAN BIT(24)      // Thresholds in descriptors.

#define TX_EOP 0x01
#define TX_IFCS 0x02
#define TX_RS 0x08
#define TX_DD 0x01
#define RX_DD 0x01
#define RX_EOP 0x02

// The longest frame with its preamble and gap at 1 Gb/s.
#define FRAME_NS ((1522 + 20) * 8)

// Where the device sees its rings; far below the ranges that an IOMMU reserves for interrupts.
#define RINGS_IOVA UINT64_C(0x10000)

static uint32_t get(struct nic* nic, uint32_t offset) {
  return *(volatile uint32_t*)(nic->registers + offset);
}

static void set(struct nic* nic, uint32_t offset, uint32_t value) {
  *(volatile uint32_t*)(nic->registers + offset) = value;
}

// A tail register, after the descriptors that it publishes.
static void ring_doorbell(struct nic* nic, uint32_t offset, uint32_t index) {
  atomic_thread_fence(memory_order_release);
  set(nic, offset, index & (nic->ring - 1));
}

static void wait_for(struct nic* nic, uint32_t offset, uint32_t bits, uint32_t value,
                     const char* what) {
  const uint64_t deadline = now_ns() + UINT64_C(10000000000);
  while ((get(nic, offset) & bits) != value) {
    errno = ETIMEDOUT;
    if (now_ns() > deadline) die("%s: %s", nic->vfio.bdf, what);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
}

// Datasheet 4.6.2: no DMA may be under way.
static void reset(struct nic* nic) {
  set(nic, kImc, UINT32_MAX);
  set(nic, kRctl, 0);
  set(nic, kTctl, TCTL_PSP);
  set(nic, kCtrl, get(nic, kCtrl) | CTRL_GIO_MASTER_DISABLE);
  wait_for(nic, kStatus, STATUS_GIO_MASTER_ENABLE, 0, "DMA does not end");
  set(nic, kCtrl, get(nic, kCtrl) | CTRL_RST);
  nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  wait_for(nic, kCtrl, CTRL_RST, 0, "the reset does not end");
  set(nic, kImc, UINT32_MAX);
  get(nic, kIcr);
}

static void set_up_ring(struct nic* nic, uint32_t base, uint64_t iova) {
  set(nic, base, (uint32_t)iova);
  set(nic, base + 4, (uint32_t)(iova >> 32));
  set(nic, base + 8, nic->ring * 16);
  set(nic, base + 0x10, 0);
  set(nic, base + 0x18, 0);
}

void nic_open(struct nic* nic, const char* bdf, uint32_t depth) {
  memset(nic, 0, sizeof(*nic));
  vfio_open(&nic->vfio, bdf);
  vfio_enable(&nic->vfio, 1);
  size_t size;
  nic->registers = vfio_map_region(&nic->vfio, 0, &size);
  const uint32_t ring = 2 * depth;
  nic->ring = ring;
  const size_t bytes = ((size_t)ring * 32 + 4095) & ~(size_t)4095;
  uint8_t* const memory = allocate(bytes);
  nic->tx = (struct tx_descriptor*)memory;
  nic->rx = (struct rx_descriptor*)(memory + (size_t)ring * 16);
  nic->batch_end = calloc(ring, sizeof(*nic->batch_end));
  reset(nic);
  vfio_map_dma(&nic->vfio, RINGS_IOVA, memory, bytes);
  set(nic, kCtrl, (get(nic, kCtrl) & ~CTRL_GIO_MASTER_DISABLE) | CTRL_SLU);
  for (uint32_t i = 0; i < 128; i++) set(nic, kMta + 4 * i, 0);
  set_up_ring(nic, kTdbal, RINGS_IOVA);
  set_up_ring(nic, kRdbal, RINGS_IOVA + (uint64_t)ring * 16);
  set(nic, kTxdctl, TXDCTL_RESERVED | TXDCTL_GRAN);
  set(nic, kTipg, 8 | 8 << 10 | 6 << 20);
  set(nic, kTctl, TCTL_EN | TCTL_PSP | 0x0f << 4 | 0x3f << 12);
  wait_for(nic, kStatus, STATUS_LU, STATUS_LU, "no link");
}

void nic_close(struct nic* nic) {
  reset(nic);
  vfio_close(&nic->vfio);
}

void nic_send(struct nic* nic, uint64_t iova, size_t stride, uint32_t length, uint32_t count) {
  const uint32_t mask = nic->ring - 1;
  const uint32_t end = nic->tx_tail + count;
  for (uint32_t i = nic->tx_tail; i != end; i++, iova += stride) {
    volatile struct tx_descriptor* const descriptor = &nic->tx[i & mask];
    descriptor->address = iova;
    descriptor->length = (uint16_t)length;
    descriptor->command = (uint8_t)(TX_EOP | TX_IFCS | (i + 1 == end ? TX_RS : 0));
    descriptor->status = 0;
  }
  nic->tx_tail = end;
  nic->batch_end[nic->batch_tail++ & mask] = end;
  ring_doorbell(nic, kTdt, end);
}

void nic_receive(struct nic* nic, uint64_t iova, size_t stride, uint32_t count) {
  const uint32_t mask = nic->ring - 1;
  for (; count > 0; count--, iova += stride) {
    volatile struct rx_descriptor* const descriptor = &nic->rx[nic->rx_tail++ & mask];
    descriptor->address = iova;
    descriptor->status = 0;
  }
  ring_doorbell(nic, kRdt, nic->rx_tail);
}

uint32_t nic_reap_sent(struct nic* nic) {
  const uint32_t mask = nic->ring - 1;
  const uint32_t before = nic->tx_head;
  while (nic->batch_head != nic->batch_tail) {
    const uint32_t end = nic->batch_end[nic->batch_head & mask];
    if ((nic->tx[(end - 1) & mask].status & TX_DD) == 0) break;
    nic->tx_head = end;
    nic->batch_head++;
  }
  return nic->tx_head - before;
}

uint32_t nic_reap_received(struct nic* nic, uint32_t length) {
  const uint32_t mask = nic->ring - 1;
  uint32_t count = 0;
  for (; nic->rx_head != nic->rx_tail; nic->rx_head++, count++) {
    const volatile struct rx_descriptor* const descriptor = &nic->rx[nic->rx_head & mask];
    const uint8_t status = descriptor->status;
    if ((status & RX_DD) == 0) break;
    atomic_thread_fence(memory_order_acquire);
    if ((status & RX_EOP) == 0 || descriptor->errors != 0 || descriptor->length != length) {
      errno = 0;
      die("%s: received %u bytes, status 0x%x, errors 0x%x", nic->vfio.bdf, descriptor->length,
          status, descriptor->errors);
    }
  }
  return count;
}

void nic_receiver_on(struct nic* nic) {
  set(nic, kRctl, RCTL_EN | RCTL_UPE | RCTL_MPE | RCTL_BAM | RCTL_SECRC);
}

void nic_receiver_off(struct nic* nic) {
  set(nic, kRctl, RCTL_UPE | RCTL_MPE | RCTL_BAM | RCTL_SECRC);
  get(nic, kStatus);
  // As the driver in TypeScript: a frame that was coming in is received whole (datasheet 10.2.5.1),
  // which takes as long as the longest one, and goes on to memory out of the FIFO.
  const uint64_t received = now_ns() + FRAME_NS;
  while (now_ns() < received) continue;
  while (get(nic, kRdfpc) != 0 && get(nic, kRdh) != get(nic, kRdt)) continue;
}

uint32_t nic_missed(struct nic* nic) { return get(nic, kMpc) + get(nic, kRnbc); }
