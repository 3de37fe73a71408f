/** Memory that native code has pointers into. */
import { P2pdmaError } from './errors.js'
import { explain } from './failures/index.js'

/** As `new SharedArrayBuffer`, with a typed error: ENOMEM where there is no memory for it. */
export function sharedMemory(bytes: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(bytes)
  } catch (error) {
    // V8 says RangeError, "Array buffer allocation failed".
    throw new P2pdmaError(`ENOMEM: not enough memory for ${bytes} bytes`, {
      code: 'ENOMEM',
      errno: -12,
      syscall: 'malloc',
      hint: explain({ code: 'ENOMEM', syscall: 'malloc', bytes }).hint,
      cause: error,
    })
  }
}
