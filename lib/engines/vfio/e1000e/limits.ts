import { Op } from '../../../move-notify/importer/batch.js'
import type { QueueOperation } from '../driver.js'

/** RCTL.BSIZE: what the device takes a receive buffer to have, whatever its frames are. */
export const RECEIVE_BUFFER = 2048

/** Without the CRC. Below 17 bytes the hardware's padding does not work (TCTL.PSP, 10.2.6.1). */
export const send: QueueOperation = { op: Op.SEND, minLength: 17, maxLength: 1518, alignment: 1 }

export const receive: QueueOperation = {
  op: Op.RECEIVE,
  minLength: RECEIVE_BUFFER,
  maxLength: 65_536,
  alignment: 1,
}
