/** RDMA on the stock soft-RoCE. */
import { compile } from '../unit/native-help.js'
import { runInGuest } from './guest.js'

// For verbs-limits.test.ts: there it would take its time.
compile('deny-call-guest', ['test/native/deny-call.cc'])

await runInGuest('guest with RDMA', 'verbs')
