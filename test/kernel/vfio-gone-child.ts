/** Reads a register of a device that no longer decodes memory, past the guard that refuses it. */
import { VfioDevice } from '../../lib/kernel/index.js'
import { native } from '../../lib/native.js'

const device = await VfioDevice.open(process.argv[2] ?? '')
const mapping = device.mapRegion(0)
const registers = new native.Registers(mapping.handle)
registers.read32(8)
// So that the guard takes it for unmapped.
Object.defineProperty(mapping, 'closed', { value: true })
device.config.write16(4, 0)
registers.read32(8)
