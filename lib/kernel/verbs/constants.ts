/** libibverbs' numbers, by their names: include/infiniband/verbs.h. */

/** What a send request does. */
export const SendOp = {
  RDMA_WRITE: 0,
  RDMA_WRITE_WITH_IMM: 1,
  SEND: 2,
  SEND_WITH_IMM: 3,
  RDMA_READ: 4,
  ATOMIC_CMP_AND_SWP: 5,
  ATOMIC_FETCH_AND_ADD: 6,
  /** Invalidates the key in the column `rkey`, here. */
  LOCAL_INV: 7,
  /** Invalidates the key in the column `rkey`, at the receiver. */
  SEND_WITH_INV: 9,
} as const

/** Flags of a send request. */
export const SendFlag = {
  /** Not before the reads and atomics posted earlier are done. */
  FENCE: 1,
  /** A success is told too; an error always is. */
  SIGNALED: 2,
  /** Wakes a receiver that waits for solicited events. */
  SOLICITED: 4,
  /** The data are copied in the post: see `QueuePair.maxInlineData`. */
  INLINE: 8,
} as const

/** Access to a memory region or window; also a queue pair's `qpAccessFlags`. */
export const MemoryAccess = {
  LOCAL_WRITE: 1,
  REMOTE_WRITE: 2,
  REMOTE_READ: 4,
  REMOTE_ATOMIC: 8,
  MW_BIND: 16,
  ZERO_BASED: 32,
  ON_DEMAND: 64,
  HUGETLB: 128,
  RELAXED_ORDERING: 1 << 20,
} as const

export const QpState = { RESET: 0, INIT: 1, RTR: 2, RTS: 3, SQD: 4, SQE: 5, ERR: 6 } as const

/** How a work request ended. */
export const WcStatus = {
  SUCCESS: 0,
  LOC_LEN_ERR: 1,
  LOC_QP_OP_ERR: 2,
  LOC_EEC_OP_ERR: 3,
  LOC_PROT_ERR: 4,
  WR_FLUSH_ERR: 5,
  MW_BIND_ERR: 6,
  BAD_RESP_ERR: 7,
  LOC_ACCESS_ERR: 8,
  REM_INV_REQ_ERR: 9,
  REM_ACCESS_ERR: 10,
  REM_OP_ERR: 11,
  RETRY_EXC_ERR: 12,
  RNR_RETRY_EXC_ERR: 13,
  LOC_RDD_VIOL_ERR: 14,
  REM_INV_RD_REQ_ERR: 15,
  REM_ABORT_ERR: 16,
  INV_EECN_ERR: 17,
  INV_EEC_STATE_ERR: 18,
  FATAL_ERR: 19,
  RESP_TIMEOUT_ERR: 20,
  GENERAL_ERR: 21,
  TM_ERR: 22,
  TM_RNDV_INCOMPLETE: 23,
} as const

/** What a completion is of. */
export const WcOpcode = {
  SEND: 0,
  RDMA_WRITE: 1,
  RDMA_READ: 2,
  COMP_SWAP: 3,
  FETCH_ADD: 4,
  BIND_MW: 5,
  LOCAL_INV: 6,
  RECV: 128,
  RECV_RDMA_WITH_IMM: 129,
} as const

export const WcFlag = {
  /** The first 40 bytes received are a header (datagrams only). */
  GRH: 1,
  WITH_IMM: 2,
  WITH_INV: 8,
} as const

export const AsyncEventType = {
  CQ_ERR: 0,
  QP_FATAL: 1,
  QP_REQ_ERR: 2,
  QP_ACCESS_ERR: 3,
  COMM_EST: 4,
  SQ_DRAINED: 5,
  PATH_MIG: 6,
  PATH_MIG_ERR: 7,
  DEVICE_FATAL: 8,
  PORT_ACTIVE: 9,
  PORT_ERR: 10,
  LID_CHANGE: 11,
  PKEY_CHANGE: 12,
  SM_CHANGE: 13,
  SRQ_ERR: 14,
  SRQ_LIMIT_REACHED: 15,
  QP_LAST_WQE_REACHED: 16,
  CLIENT_REREGISTER: 17,
  GID_CHANGE: 18,
  WQ_FATAL: 19,
} as const

/** The name that a table has for a number, or the number itself. */
function nameIn(table: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(table).find((name) => table[name] === value) ?? String(value)
}

/** For messages: `REM_ACCESS_ERR` and its like. */
export function wcStatusName(status: number): string {
  return nameIn(WcStatus, status)
}

export function asyncEventName(event: number): string {
  return nameIn(AsyncEventType, event)
}

export function qpStateName(state: number): string {
  return nameIn(QpState, state)
}
