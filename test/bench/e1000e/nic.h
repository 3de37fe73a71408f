// The 82574 with one transmit and one receive ring of legacy descriptors, polled.
#ifndef TEST_BENCH_E1000E_NIC_H_
#define TEST_BENCH_E1000E_NIC_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfio.h"

enum {
  kFrame = 1514,         // Bytes of a frame without its CRC.
  kReceiveBuffer = 2048  // RCTL.BSIZE.
};

// 82574 datasheet 7.1.4.1, as it lies in memory.
struct rx_descriptor {
  uint64_t address;
  uint16_t length;
  uint16_t checksum;
  uint8_t status;
  uint8_t errors;
  uint16_t vlan;
};

// 82574 datasheet 7.2.10.1.
struct tx_descriptor {
  uint64_t address;
  uint16_t length;
  uint8_t cso;
  uint8_t command;
  uint8_t status;
  uint8_t css;
  uint16_t vlan;
};

// Indices count on for ever; a ring's slot is the index modulo its size, a power of two.
struct nic {
  struct vfio vfio;
  volatile uint8_t* registers;
  uint32_t ring;
  volatile struct tx_descriptor* tx;
  volatile struct rx_descriptor* rx;
  uint32_t tx_head;  // The next one to see done.
  uint32_t tx_tail;  // The next one to fill.
  uint32_t rx_head;
  uint32_t rx_tail;
  // Index behind each batch posted and not yet seen done: only its last descriptor reports.
  uint32_t* batch_end;
  uint32_t batch_head;
  uint32_t batch_tail;
};

// Opens, resets and starts it, the receiver off, and waits for the link. Its rings have twice
// `depth` descriptors: one must stay empty, since a full ring would look like an empty one.
void nic_open(struct nic* nic, const char* bdf, uint32_t depth);
void nic_close(struct nic* nic);

// The ring has room for `count` (the caller sees to it); one doorbell.
void nic_send(struct nic* nic, uint64_t iova, size_t stride, uint32_t length, uint32_t count);
void nic_receive(struct nic* nic, uint64_t iova, size_t stride, uint32_t count);

// How many more have been sent, at most `limit` batches' worth.
uint32_t nic_reap_sent(struct nic* nic);

// How many more have come in; each must be of `length` bytes and whole.
uint32_t nic_reap_received(struct nic* nic, uint32_t length);

// RCTL.EN; off is read back.
void nic_receiver_on(struct nic* nic);
void nic_receiver_off(struct nic* nic);

// Frames that found no descriptor (RNBC) or no room (MPC) since the last call.
uint32_t nic_missed(struct nic* nic);

#endif  // TEST_BENCH_E1000E_NIC_H_
