/**
 * The only importer of the addon, and the type of everything in it. Nothing
 * here decides: the typed classes of lib/kernel and lib/engines do.
 */
import bindings from 'bindings'
import { fileURLToPath } from 'node:url'
import { P2pdmaError } from './errors.js'

/** Owns one file descriptor, close-on-exec. Closed by the garbage collector too. */
export interface NativeFd {
  /** -1 after `close()`. */
  readonly number: number
  close(): void
}

/** Owns one CPU mapping; its range is kept until nobody can touch it any more. */
export interface NativeMapping {
  /** Bytes; 0 after `unmap()`. */
  readonly length: number
  view(offset: number, length: number): ArrayBuffer
  unmap(): boolean
}

export interface FdStat {
  type: 'dma-buf' | 'memfd' | 'file' | 'device' | 'other'
  size: number
  inode: number
  device: number
  /** The system's page size, or a hugetlb memfd's own. */
  pageSize: number
  /** null where the file cannot be sealed. */
  seals: number | null
}

interface FdNative {
  openFd(path: string, flags: number): NativeFd
  adoptFd(fd: number): NativeFd
  dupFd(fd: NativeFd | number): NativeFd
  statFd(fd: NativeFd): FdStat
}

interface MappingNative {
  readonly pageSize: number
  mapFd(
    fd: NativeFd,
    offset: number,
    length: number,
    write: boolean,
    populate: boolean,
  ): NativeMapping
  copySlice(
    target: NativeMapping,
    targetOffset: number,
    source: NativeMapping,
    sourceOffset: number,
    length: number,
  ): Promise<void>
  fillSlice(mapping: NativeMapping, offset: number, length: number, pattern: bigint): Promise<void>
  countRunsSlice(
    mapping: NativeMapping,
    offset: number,
    length: number,
    pattern: bigint,
    inRun: boolean,
  ): Promise<{ runs: number; inRun: boolean }>
}

interface MemfdNative {
  createMemfd(name: string, flags: number): NativeFd
  truncateFd(fd: NativeFd, size: number): void
  addSeals(fd: NativeFd, seals: number): void
  getSeals(fd: NativeFd): number
}

export type Native = FdNative & MappingNative & MemfdNative

function load(): Native {
  try {
    return bindings({
      bindings: 'p2pdma',
      module_root: fileURLToPath(new URL('../..', import.meta.url)),
    }) as Native
  } catch (cause) {
    throw new P2pdmaError('The native addon of p2pdma could not be loaded', {
      code: 'ERR_DLOPEN_FAILED',
      hint: 'build it with `npm rebuild p2pdma`, or `npm run build:native` in a checkout',
      cause,
    })
  }
}

export const native = load()
