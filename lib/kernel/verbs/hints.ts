/** What to load, permit or raise, by error code. */
import { readFileSync } from 'node:fs'
import type { Hints } from '../call.js'

const LOAD = 'load the driver: `modprobe ib_uverbs`, or soft-RoCE with `modprobe rdma_rxe`'

export const deviceHints: Hints = {
  ENOSYS: LOAD,
  ENOENT: LOAD,
  EACCES: 'needs read and write access to /dev/infiniband/uverbs*',
  EPERM: 'needs read and write access to /dev/infiniband/uverbs*',
}

export const cmHints: Hints = {
  ENODEV:
    'no RDMA device has that address: see `rdma link`; is rdma_ucm loaded (`modprobe rdma_ucm`)?',
  ENOENT: 'load the driver: `modprobe rdma_ucm`',
  EACCES: 'needs read and write access to /dev/infiniband/rdma_cm',
  EADDRNOTAVAIL: 'no interface of this network namespace has that address',
  EADDRINUSE: 'somebody listens there already',
}

/**
 * Registering pins memory, which RLIMIT_MEMLOCK limits for those without
 * CAP_IPC_LOCK (drivers/infiniband/core/umem.c, ib_umem_get).
 */
export function registerHints(): Hints {
  return {
    get ENOMEM() {
      return memoryHint()
    },
    /** A limit of 0: can_do_mlock(). */
    get EPERM() {
      return memoryHint()
    },
    EFAULT: 'memory without pages (a dma-buf or BAR) cannot be registered so: registerDmabuf()',
    EACCES: 'the mapping has to be writable for such access',
    EOPNOTSUPP: 'the device does not do that: see VerbsDevice.attributes()',
  }
}

export const dmabufHints: Hints = {
  EOPNOTSUPP:
    "the device's driver registers no dma-bufs, or not this exporter's: register a memory mapping",
  EPROTONOSUPPORT: 'this kernel has no dma-buf registration: Linux 5.12 or later',
  EINVAL:
    "the device cannot reach this exporter's memory (PCIe topology), or the driver has not the call",
  EREMOTEIO: "the device cannot reach this exporter's memory: see the PCIe topology (`lspci -t`)",
  EBADF: 'the dma-buf is not one',
}

export const modifyHints: Hints = {
  EINVAL: 'the state does not follow from the present one, or a field is missing or out of place',
  ENETUNREACH: "the peer's GID is not reachable by this one",
  EHOSTUNREACH: 'nobody answered for the address in the GID: is the peer up?',
  ETIMEDOUT: 'nobody answered for the address in the GID: is the peer up?',
}

function memoryHint(): string {
  const limit = numberIn('limits', /^Max locked memory\s+(\d+)/m)
  if (limit === null)
    return 'this process may lock any amount: the machine, or the device, has no more'
  // In units of 1024 bytes; fs/proc/task_mmu.c, task_mem().
  const pinned = (numberIn('status', /^VmPin:\s+(\d+)/m) ?? 0) * 1024
  return (
    `the limit of locked memory is ${limit} bytes, and ${pinned} of them are in use: raise it with ` +
    '`ulimit -l`, LimitMEMLOCK= of systemd, or memlock in /etc/security/limits.conf'
  )
}

/** Of this process; null where there is none. */
function numberIn(file: string, pattern: RegExp): number | null {
  const found = pattern.exec(readFileSync(`/proc/self/${file}`, 'utf8'))?.[1]
  return found === undefined ? null : Number(found)
}
