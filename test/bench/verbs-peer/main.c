// What the benchmark `verbs` compares event mode with: two-sided ping-pong with a
// completion channel. Two processes; the other one echoes. Their parent tells each
// what the other says, and when to begin. Prints a line of JSON.
//
//   verbs-peer ping|echo DEVICE GID-INDEX SIZE DEPTH WARM-UP ITERATIONS
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connection.h"

static const uint64_t kReceive = 1;

struct pong {
  struct connection c;
  struct settings settings;
  // Messages that have come, and those of them that were looked at.
  long arrived;
  long seen;
  int sending;
};

static void post_receive(struct pong* p) {
  struct ibv_sge sge = {.addr = (uintptr_t)p->c.memory + p->settings.size,
                        .length = p->settings.size,
                        .lkey = p->c.mr->lkey};
  struct ibv_recv_wr wr = {.wr_id = kReceive, .sg_list = &sge, .num_sge = 1};
  struct ibv_recv_wr* bad = NULL;
  check(ibv_post_recv(p->c.qp, &wr, &bad) == 0, "ibv_post_recv");
}

static void poll_all(struct pong* p) {
  struct ibv_wc wc[16];
  int count = 0;
  do {
    count = ibv_poll_cq(p->c.cq, 16, wc);
    check(count >= 0, "ibv_poll_cq");
    for (int i = 0; i < count; i++) {
      check(wc[i].status == IBV_WC_SUCCESS, ibv_wc_status_str(wc[i].status));
      if (wc[i].wr_id == kReceive) {
        p->arrived++;
        post_receive(p);
      } else {
        p->sending--;
      }
    }
  } while (count > 0);
}

// Asks for an event before it looks, so that none is missed.
static void wait_event(struct pong* p) {
  struct ibv_cq* cq = NULL;
  void* context = NULL;
  check(ibv_get_cq_event(p->c.events, &cq, &context) == 0, "ibv_get_cq_event");
  ibv_ack_cq_events(cq, 1);
  check(ibv_req_notify_cq(cq, 0) == 0, "ibv_req_notify_cq");
  poll_all(p);
}

static void receive_one(struct pong* p) {
  while (p->arrived == p->seen) wait_event(p);
  p->seen++;
}

static void send_one(struct pong* p) {
  while (p->sending == p->settings.depth) wait_event(p);
  struct ibv_sge sge = {
      .addr = (uintptr_t)p->c.memory, .length = p->settings.size, .lkey = p->c.mr->lkey};
  struct ibv_send_wr wr = {
      .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
  struct ibv_send_wr* bad = NULL;
  check(ibv_post_send(p->c.qp, &wr, &bad) == 0, "ibv_post_send");
  p->sending++;
}

static void exchange_messages(struct pong* p, int pings, long count) {
  for (long i = 0; i < count; i++) {
    if (pings) send_one(p);
    receive_one(p);
    if (!pings) send_one(p);
  }
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc != 8) {
    fprintf(stderr, "usage: verbs-peer ping|echo DEVICE GID-INDEX SIZE DEPTH WARM-UP ITERATIONS\n");
    return 2;
  }
  const int pings = strcmp(argv[1], "ping") == 0;
  struct pong p = {.settings = {.device = argv[2],
                                .gid_index = atoi(argv[3]),
                                .size = (uint32_t)atoi(argv[4]),
                                .depth = atoi(argv[5])}};
  const long warm_up = atol(argv[6]);
  const long iterations = atol(argv[7]);
  open_connection(&p.c, &p.settings);
  for (int i = 0; i < p.settings.depth; i++) post_receive(&p);
  check(ibv_req_notify_cq(p.c.cq, 0) == 0, "ibv_req_notify_cq");
  // Both ends have their receives out before a message comes.
  printf("ready\n");
  fflush(stdout);
  char word[8] = "";
  check(scanf(" %7s", word) == 1 && strcmp(word, "go") == 0, "the word to begin");
  exchange_messages(&p, pings, warm_up);
  const int64_t start = now();
  exchange_messages(&p, pings, iterations);
  printf("{\"ns\":%" PRId64 "}\n", now() - start);
  fflush(stdout);
  // The other end may want its last acknowledgement.
  while (p.sending > 0) wait_event(&p);
  close_connection(&p.c);
  return 0;
}
