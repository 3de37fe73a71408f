/** RDMA on the stock soft-RoCE. */
import { runInGuest } from './guest.js'

await runInGuest('guest with RDMA', 'verbs')
