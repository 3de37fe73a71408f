#include "connection.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check(int ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "verbs-peer: %s: %s\n", what, strerror(errno));
  exit(1);
}

static struct ibv_context* open_device(const char* name) {
  struct ibv_device** list = ibv_get_device_list(NULL);
  check(list != NULL, "ibv_get_device_list");
  struct ibv_context* context = NULL;
  for (struct ibv_device** each = list; *each != NULL && context == NULL; each++) {
    if (strcmp(ibv_get_device_name(*each), name) == 0) context = ibv_open_device(*each);
  }
  check(context != NULL, name);
  ibv_free_device_list(list);
  return context;
}

struct end {
  uint32_t qpn;
  uint64_t subnet;
  uint64_t interface;
};

// Says who we are, and hears who the other end is.
static struct end exchange(struct connection* c, const struct settings* settings) {
  union ibv_gid gid;
  check(ibv_query_gid(c->context, 1, settings->gid_index, &gid) == 0, "ibv_query_gid");
  printf("end %" PRIu32 " %" PRIu64 " %" PRIu64 "\n", c->qp->qp_num,
         (uint64_t)gid.global.subnet_prefix, (uint64_t)gid.global.interface_id);
  fflush(stdout);
  struct end other;
  check(scanf(" end %" SCNu32 " %" SCNu64 " %" SCNu64, &other.qpn, &other.subnet,
              &other.interface) == 3,
        "what the other end says");
  return other;
}

static void connect_to(struct connection* c, const struct settings* settings, struct end other) {
  struct ibv_port_attr port;
  check(ibv_query_port(c->context, 1, &port) == 0, "ibv_query_port");
  struct ibv_qp_attr attr = {
      .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
  int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  check(ibv_modify_qp(c->qp, &attr, mask) == 0, "INIT");
  attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR,
                              .path_mtu = port.active_mtu,
                              .dest_qp_num = other.qpn,
                              .max_dest_rd_atomic = 1,
                              .min_rnr_timer = 12};
  attr.ah_attr.is_global = 1;
  attr.ah_attr.port_num = 1;
  attr.ah_attr.grh.sgid_index = (uint8_t)settings->gid_index;
  attr.ah_attr.grh.hop_limit = 64;
  attr.ah_attr.grh.dgid.global.subnet_prefix = other.subnet;
  attr.ah_attr.grh.dgid.global.interface_id = other.interface;
  mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
         IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  check(ibv_modify_qp(c->qp, &attr, mask) == 0, "RTR");
  attr = (struct ibv_qp_attr){
      .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
  mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
         IBV_QP_MAX_QP_RD_ATOMIC;
  check(ibv_modify_qp(c->qp, &attr, mask) == 0, "RTS");
}

void open_connection(struct connection* c, const struct settings* settings) {
  c->context = open_device(settings->device);
  c->pd = ibv_alloc_pd(c->context);
  check(c->pd != NULL, "ibv_alloc_pd");
  c->events = ibv_create_comp_channel(c->context);
  check(c->events != NULL, "ibv_create_comp_channel");
  c->cq = ibv_create_cq(c->context, 4 * settings->depth, NULL, c->events, 0);
  check(c->cq != NULL, "ibv_create_cq");
  struct ibv_qp_init_attr init = {.send_cq = c->cq, .recv_cq = c->cq, .qp_type = IBV_QPT_RC};
  init.cap.max_send_wr = init.cap.max_recv_wr = (uint32_t)settings->depth;
  init.cap.max_send_sge = init.cap.max_recv_sge = 1;
  c->qp = ibv_create_qp(c->pd, &init);
  check(c->qp != NULL, "ibv_create_qp");
  // What is sent, and behind it what is received.
  const size_t length = 2 * (size_t)settings->size;
  check(posix_memalign((void**)&c->memory, 4096, length) == 0, "posix_memalign");
  memset(c->memory, 1, length);
  c->mr = ibv_reg_mr(c->pd, c->memory, length, IBV_ACCESS_LOCAL_WRITE);
  check(c->mr != NULL, "ibv_reg_mr");
  connect_to(c, settings, exchange(c, settings));
}

void close_connection(struct connection* c) {
  ibv_destroy_qp(c->qp);
  ibv_dereg_mr(c->mr);
  ibv_destroy_cq(c->cq);
  ibv_destroy_comp_channel(c->events);
  ibv_dealloc_pd(c->pd);
  ibv_close_device(c->context);
  free(c->memory);
}
