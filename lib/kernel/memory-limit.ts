import { constants, totalmem } from 'node:os'
import { P2pdmaError } from '../errors.js'

/**
 * Refuses, with ENOMEM, what no state of this machine has room for. The kernel
 * would find out page by page, and by then kill some process.
 */
export function checkFitsMachine(size: number): void {
  if (size <= totalmem()) return
  throw new P2pdmaError(`size is more than this machine's ${totalmem()} bytes`, {
    code: 'ENOMEM',
    errno: -constants.errno.ENOMEM,
    argument: 'size',
  })
}
