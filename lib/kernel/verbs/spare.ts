/** Descriptors that libibverbs and librdmacm are going to need. */
import { native, type NativeFd } from '../../native.js'
import { call } from '../call.js'

/** Those that they have open at once, at most, to look for devices or to open one. */
const SPARE = 8

/**
 * Both take EMFILE for a device that is not there, and a driver that libibverbs could not load
 * for want of a descriptor it does not load again (libibverbs/init.c, ibverbs_get_device_list()).
 */
export function checkSpare(): void {
  const path = '/dev/null'
  const held: NativeFd[] = []
  try {
    for (let i = 0; i < SPARE; i++) held.push(call(() => native.openFd(path, 0), { path }))
  } finally {
    for (const fd of held) fd.close()
  }
}
