/** A device's configuration space, of which the rig has no device that shows it: all ones. */
import t, { type Test } from 'tap'
import { Memfd } from '../../lib/kernel/memfd.js'
import { CommandBit, Config, ConfigSpace } from '../../lib/kernel/vfio/config-space.js'

const POWER = 0x40

/** Fake: a file with the bytes that a device would answer. */
function fakeConfig(t: Test, bytes: Uint8Array): ConfigSpace {
  const memfd = Memfd.create(4096, { name: 'fake-config' })
  t.teardown(() => memfd.close())
  const mapping = memfd.map()
  new Uint8Array(mapping.view(0, 256)).set(bytes)
  mapping.unmap()
  return new ConfigSpace(
    () => memfd.handle,
    0,
    256,
    () => false,
  )
}

function header(command: number, powerState: number): Uint8Array {
  const bytes = new Uint8Array(256)
  const view = new DataView(bytes.buffer)
  view.setUint16(Config.COMMAND, command, true)
  view.setUint8(Config.CAPABILITIES, POWER)
  view.setUint8(POWER, 1)
  view.setUint16(POWER + 4, powerState, true)
  return bytes
}

t.test('whether its memory answers', (t) => {
  t.equal(fakeConfig(t, header(CommandBit.MEMORY, 0)).hasMemory, true)
  t.equal(fakeConfig(t, header(CommandBit.MASTER, 0)).hasMemory, false, 'switched off')
  t.equal(fakeConfig(t, header(CommandBit.MEMORY, 3)).hasMemory, false, 'in D3')
  t.equal(fakeConfig(t, new Uint8Array(256).fill(0xff)).hasMemory, false, 'not there any more')
  const bare = header(0xffff, 0)
  bare[Config.CAPABILITIES] = 0
  t.equal(fakeConfig(t, bare).hasMemory, false, 'nor one without capabilities')
  t.end()
})
