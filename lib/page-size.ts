/**
 * Bytes of a page of this machine, without the addon, for limits and help texts: 4096 on
 * x86, and 4096, 16384 or 65536 on arm64, as its kernel was built. `native.pageSize` is the same.
 */
import { readFileSync } from 'node:fs'
import { endianness } from 'node:os'

/** include/uapi/linux/auxvec.h; fs/binfmt_elf.c, create_elf_tables(). */
const AT_PAGESZ = 6n

/** Its multiples are multiples of every page. */
const LARGEST = 1 << 16

/** Of a process's auxiliary vector, 64-bit pairs of a type and a value; null where it has none. */
export function pageSizeIn(auxv: Buffer, order = endianness()): number | null {
  const word = (at: number) =>
    order === 'LE' ? auxv.readBigUInt64LE(at) : auxv.readBigUInt64BE(at)
  for (let at = 0; at + 16 <= auxv.length; at += 16) {
    if (word(at) === AT_PAGESZ) return Number(word(at + 8))
  }
  return null
}

function read(): number {
  try {
    return pageSizeIn(readFileSync('/proc/self/auxv')) ?? LARGEST
  } catch {
    return LARGEST
  }
}

export const pageSize = read()
