/**
 * The rig's exporter whose buffers the kernel moves (test/modules), where it is
 * loaded: what each device makes of it is a fact to tell. No scenario uses it,
 * since nothing of it is ours to move.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import type { VerbsEngine } from '../../engines/verbs/engine.js'
import { MappedBacking } from '../../exporters/mapped-backing.js'
import { MappedFile } from '../../exporters/mapped-file.js'
import { DmaBuf } from '../../kernel/dma-buf.js'
import { native } from '../../native.js'
import type { DeviceAxes } from '../axes.js'

const NAME = 'p2pdma_mover'
const PATH = `/dev/${NAME}`

/** Empty where there is no such exporter, or it is not ours to open. */
export async function askRigMover(engines: readonly VerbsEngine[]): Promise<DeviceAxes[]> {
  const axes: DeviceAxes[] = []
  for (const engine of engines) {
    if (engine.dmabufRefusal !== null) continue
    const dmaBuf = create(native.pageSize)
    if (dmaBuf === null) continue
    const backing = new MappedBacking(new MappedFile(NAME, dmaBuf), 0, native.pageSize)
    try {
      const found = await engine.tryMoving(backing, () => move(backing.fd))
      axes.push({ device: engine.device.name, exporter: NAME, ...found })
    } finally {
      await backing.free()
    }
  }
  return axes
}

function create(size: number): DmaBuf | null {
  let fd = -1
  try {
    fd = openSync(PATH, 'r+')
  } catch {
    return null
  }
  try {
    writeSync(fd, `create ${size}`)
    const answer = Buffer.alloc(32)
    return DmaBuf.adopt(Number(answer.toString('latin1', 0, readSync(fd, answer))))
  } finally {
    closeSync(fd)
  }
}

/** Off the loop: it waits for the move before it. */
async function move(fd: number): Promise<void> {
  const file = await open(PATH, 'r+')
  try {
    await file.write(`move ${fd} 0`)
  } finally {
    await file.close()
  }
}
