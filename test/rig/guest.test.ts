/** What needs a real kernel: the tests of test/kernel, and every example. */
import { runInGuest } from './guest.js'

await runInGuest('guest', 'rig', [
  // A disk for bind.test.ts, of nothing.
  ...['--device', 'nvme,serial=p2pdma,drive=disk'],
  ...['--device', '-blockdev driver=null-co,node-name=disk,size=67108864,read-zeroes=on'],
])
