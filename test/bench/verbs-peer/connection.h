// One reliable connection, as bare as it can be. The two ends learn of each other
// over stdin and stdout, a line each way.
#pragma once

#include <infiniband/verbs.h>
#include <stdint.h>

struct settings {
  const char* device;
  int gid_index;
  uint32_t size;
  int depth;
};

struct connection {
  struct ibv_context* context;
  struct ibv_pd* pd;
  struct ibv_comp_channel* events;
  struct ibv_cq* cq;
  struct ibv_qp* qp;
  struct ibv_mr* mr;
  uint8_t* memory;
};

// Each ends the program, with a line on stderr, where something fails.
void check(int ok, const char* what);
void open_connection(struct connection* c, const struct settings* settings);
void close_connection(struct connection* c);
