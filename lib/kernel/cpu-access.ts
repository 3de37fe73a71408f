/**
 * DMA_BUF_IOCTL_SYNC, off the event loop and repeated when interrupted. It
 * waits for the fences of the dma-buf (drivers/dma-buf/dma-buf.c,
 * dma_buf_begin_cpu_access).
 */
import { P2pdmaError } from '../errors.js'
import { type Native, type NativeFd, native } from '../native.js'
import { callAsync, retryInterrupted } from './call.js'

/** What the CPU does between begin and end: read, write, or both. */
export type CpuAccessMode = 'r' | 'w' | 'rw'

const SYNC_READ = 1
const SYNC_WRITE = 2
const SYNC_END = 4

/** The call this file makes, so that a test can answer for the kernel. */
export type SyncCalls = Pick<Native, 'dmaBufSync'>

export function beginCpuAccess(
  fd: NativeFd,
  mode: CpuAccessMode,
  system: SyncCalls = native,
): Promise<void> {
  return sync(fd, modeFlags(mode), system)
}

export function endCpuAccess(
  fd: NativeFd,
  mode: CpuAccessMode,
  system: SyncCalls = native,
): Promise<void> {
  return sync(fd, modeFlags(mode) | SYNC_END, system)
}

/** DMA_BUF_SYNC_READ, DMA_BUF_SYNC_WRITE or both; ERR_INVALID_ARG_VALUE for another mode. */
export function modeFlags(mode: CpuAccessMode): number {
  const flags = { r: SYNC_READ, w: SYNC_WRITE, rw: SYNC_READ | SYNC_WRITE }
  if (typeof mode !== 'string' || !Object.hasOwn(flags, mode)) {
    throw new P2pdmaError("mode must be 'r', 'w' or 'rw'", {
      code: 'ERR_INVALID_ARG_VALUE',
      argument: 'mode',
    })
  }
  return flags[mode]
}

async function sync(fd: NativeFd, flags: number, system: SyncCalls): Promise<void> {
  await callAsync(() => retryInterrupted(() => system.dmaBufSync(fd, flags)), {
    doing: 'dma-buf.sync',
  })
}
