/**
 * The NIC behind a root port, which the tests lose: what boots the rig with it is
 * test/rig/guest.test.ts.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync, closeSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { bindToVfio, unbindFromVfio } from '../../lib/kernel/index.js'

if (process.env['P2PDMA_RIG'] !== '1') throw new Error('this breaks devices: run it in the rig')

export const PORT = '0000:00:18.0'
export const VICTIM = '0000:01:00.0'
/** On the other end of its cable. */
export const PARTNER = '0000:00:19.0'

/** More than anything here takes on a busy machine, and less than for ever; ms. */
export const LONG_MS = 120_000

export const devicePath = (address: string, name = '') => `/sys/bus/pci/devices/${address}/${name}`

/** By a process of its own, which may have to wait in the kernel; resolves with its exit code. */
export async function write(path: string, text: string): Promise<number> {
  const child = spawn('sh', ['-c', `echo "$1" > "$2"`, 'sh', text, path], { stdio: 'ignore' })
  const [code] = (await once(child, 'close')) as [number]
  return code
}

/** Finds a device that was removed again, and binds it. */
export async function rescan(address = VICTIM): Promise<void> {
  writeFileSync('/sys/bus/pci/rescan', '1')
  while (!existsSync(devicePath(address))) await sleep(20)
  await bindToVfio(address)
}

/** Returns what gives them back. */
export async function bindBoth(): Promise<() => Promise<unknown>> {
  const both = [VICTIM, PARTNER]
  if (!both.every((address) => existsSync(devicePath(address)))) {
    throw new Error('no NIC behind a root port: boot as test/rig/guest.test.ts does')
  }
  await bindToVfio(both)
  return () => unbindFromVfio(both)
}

/** Bits of the AER capability's registers: include/uapi/linux/pci_regs.h. */
export const Aer = {
  /** PCI_ERR_COR_RCVR */
  RECEIVER: { correctable: 1, uncorrectable: 0 },
  /** PCI_ERR_UNC_COMP_TIME: not fatal */
  COMPLETION_TIMEOUT: { correctable: 0, uncorrectable: 0x4000 },
  /** PCI_ERR_UNC_MALF_TLP: fatal */
  MALFORMED: { correctable: 0, uncorrectable: 0x4_0000 },
} as const

/** The kernel's own way to make its AER code see an error: struct aer_error_inj (aer_inject.c). */
export async function injectAer(error: (typeof Aer)[keyof typeof Aer]): Promise<void> {
  if (!existsSync('/dev/aer_inject')) {
    const [code] = (await once(spawn('modprobe', ['aer_inject']), 'close')) as [number]
    if (code !== 0) throw new Error('modprobe aer_inject failed')
  }
  const bytes = new DataView(new ArrayBuffer(32))
  bytes.setUint8(0, 1)
  bytes.setUint32(4, error.uncorrectable, true)
  bytes.setUint32(8, error.correctable, true)
  const fd = openSync('/dev/aer_inject', 'w')
  try {
    writeSync(fd, new Uint8Array(bytes.buffer))
  } finally {
    closeSync(fd)
  }
}

/** What the kernel has counted of them: `aer_dev_correctable` and its like. */
export function countAer(kind: 'correctable' | 'nonfatal' | 'fatal'): number {
  const text = readFileSync(devicePath(VICTIM, `aer_dev_${kind}`), 'utf8')
  return Number(/^TOTAL_ERR_\w+ (\d+)/m.exec(text)?.[1])
}

/** PCI_COMMAND of a device, by somebody who has not asked us. */
export function writeCommand(address: string, command: number): void {
  const fd = openSync(devicePath(address, 'config'), 'r+')
  try {
    writeSync(fd, Uint8Array.of(command & 0xff, command >> 8), 0, 2, 4)
  } finally {
    closeSync(fd)
  }
}
