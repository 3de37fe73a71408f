/**
 * The kernel's log, and the witness in it: what a NIC may not reach is a fault,
 * by its device and its address.
 */
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type DmaFault, KernelLog, Memfd, parseDmarFault } from '../../lib/kernel/index.js'
import { DmaAccess, type Registers, VfioDevice } from '../../lib/kernel/vfio/index.js'
import { page } from './support.js'

if (process.env['P2PDMA_RIG'] !== '1') throw new Error('this drives a NIC: run it in the rig')

const NIC = '0000:00:12.0'

/** Registers of the 82574 (datasheet, chapter 10), and what makes it send to itself. */
const Reg = { CTRL: 0x0000, RCTL: 0x0100, TCTL: 0x0400 } as const
const RX_RING = 0x2800
const TX_RING = 0x3800
const SET_LINK_UP = 0x40
const TRANSMIT = 0x2
/** On, promiscuous, MAC loopback. */
const RECEIVE = 0x2 | 0x8 | 0x10 | 0x40

/** Writes to the log as user space may, marked as what it is. */
function say(fd: number, text: string): void {
  writeSync(fd, `<6>p2pdma test, not a kernel message: ${text}\n`)
}

t.test('lines come once, in order, and what was overwritten is counted', async (t) => {
  writeFileSync('/proc/sys/kernel/printk_devkmsg', 'on\n')
  const fd = openSync('/dev/kmsg', 'w')
  say(fd, 'before')
  const log = KernelLog.open()
  t.same(log.read(), [], 'from now on')
  let woken = false
  const waiting = log.readable().then(() => (woken = true))
  await sleep(20)
  t.notOk(woken)
  say(
    fd,
    'DMAR: [DMA Write NO_PASID] Request device [00:1e.7] fault addr 0x123000 [fault reason 0x05] x',
  )
  say(fd, 'two')
  await waiting
  const records = log.read()
  t.match(
    records.map(({ text }) => text.replace(/^.*message: /, '')),
    [/^DMAR/, 'two'],
  )
  t.match(parseDmarFault(records[0]?.text ?? ''), { device: '0000:00:1e.7', iova: 0x123000 })
  t.match(records[1], { level: 6, sequence: (records[0]?.sequence ?? 0) + 1 })
  const many = 12_000
  for (let i = 0; i < many; i++) say(fd, `${i} ${'x'.repeat(80)}`)
  closeSync(fd)
  let seen = 0
  for (;;) {
    const some = log.read()
    if (some.length === 0) break
    t.ok(some.length <= 1000)
    seen += some.filter(({ text }) => text.includes('not a kernel message')).length
  }
  t.ok(log.lost > 0)
  t.ok(seen + log.lost >= many, `${seen} read and ${log.lost} lost of ${many}`)
  const closing = t.rejects(log.readable(), { code: 'ERR_CLOSED' })
  log.close()
  log.close()
  await closing
  t.throws(() => log.read(), { code: 'ERR_CLOSED' })
})

/** A ring of eight descriptors of which the NIC has the first. */
function setRing(registers: Registers, base: number, iova: number): void {
  registers.write32(base, iova)
  registers.write32(base + 0x4, 0)
  registers.write32(base + 0x8, 128)
  registers.write32(base + 0x10, 0)
  registers.write32(base + 0x18, 0)
}

/** Sends the first descriptor of the ring at `iova`; what comes back goes by that 1 KiB above. */
function sendOne(device: VfioDevice, iova: number): void {
  const registers = device.openRegisters(0)
  registers.write32(Reg.CTRL, registers.read32(Reg.CTRL) | SET_LINK_UP)
  setRing(registers, RX_RING, iova + 1024)
  registers.write32(Reg.RCTL, RECEIVE)
  registers.write32(RX_RING + 0x18, 1)
  setRing(registers, TX_RING, iova)
  registers.write32(Reg.TCTL, TRANSMIT)
  registers.write32(TX_RING + 0x18, 1)
  registers.write32(Reg.TCTL, 0)
  registers.write32(Reg.RCTL, 0)
  registers.close()
}

async function faultAfter(t: Test, log: KernelLog): Promise<DmaFault | undefined> {
  // A fault that nobody logs fails the test by its time limit.
  for (;;) {
    const faults = log.read().flatMap(({ text }) => parseDmarFault(text) ?? [])
    if (faults.length > 0) {
      t.equal(faults.length, 1)
      return faults[0]
    }
    await log.readable()
  }
}

t.test('a NIC that reads and writes what is not mapped for it', async (t) => {
  using log = KernelLog.open()
  await using device = await VfioDevice.open(NIC)
  using memory = Memfd.create(2 * page)
  const mapping = memory.map()
  const ring = 0x200000
  const nowhere = 0x400000
  device.config.setMaster(true)
  sendOne(device, ring)
  t.match(await faultAfter(t, log), { device: NIC, write: false, iova: ring, reason: /.{5}/ })
  // A frame of 64 bytes out of the second page: end of packet, report its status.
  const words = new DataView(mapping.view())
  words.setBigUint64(0, BigInt(ring + page), true)
  words.setUint32(8, (0x09 << 24) | 64, true)
  words.setBigUint64(1024, BigInt(nowhere), true)
  device.space.mapNow(ring, mapping, 0, 2 * page, DmaAccess.READ | DmaAccess.WRITE)
  sendOne(device, ring)
  t.match(await faultAfter(t, log), { device: NIC, write: true, iova: nowhere, reason: /Write/ })
  t.equal(words.getUint32(12, true) & 1, 1, 'the frame has been sent')
})
