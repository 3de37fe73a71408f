/** A resident set whose calls may come at any moment: what must hold whatever the order. */
import type { MovableBuffer } from '../../../lib/move-notify/exporter/movable-buffer.js'
import { HeldBacking } from '../../../lib/move-notify/exporter/residency/held-backing.js'
import { ResidentSet } from '../../../lib/move-notify/exporter/residency/resident-set.js'
import type { ModelBacking } from '../memory.js'
import { Memory, type MemoryFaults } from '../memory.js'
import type { World } from '../scheduler.js'

/** One call. Numbers are indices of buffers. */
export type Call =
  | { do: 'use'; buffers: number[] }
  | { do: 'create' }
  | { do: 'away'; buffer: number }
  | { do: 'close'; buffer: number }
  | { do: 'end' }

export interface ResidencyOptions {
  /** Buffers of two cells; there is room for `room` of them. */
  buffers: number
  room: number
  threads: Call[][]
  memory?: MemoryFaults
  poison?: boolean
  /** Codes that calls may reject with. */
  allow?: string[]
}

const SIZE = 2

export function residency(world: World, options: ResidencyOptions): void {
  const start = run(world, options).catch((error: unknown) => world.fail(String(error)))
  world.expect('the set-up', start)
}

async function run(world: World, options: ResidencyOptions): Promise<void> {
  const memory = new Memory(world, options.memory)
  const budget = options.room * SIZE
  const set = new ResidentSet(memory.exporter('video'), {
    budget,
    evictTo: memory.exporter('system'),
    granularity: 1,
  })
  const video = () =>
    memory.backings.filter((each) => each.placement.startsWith('video') && each.state !== 'freed')
  world.invariant(() => {
    const held = video().reduce((sum, { size }) => sum + size, 0)
    if (held > budget) world.fail(`${held} bytes are held of ${budget}`)
    if (set.stats.residentBytes > budget) world.fail(`${set.stats.residentBytes} are charged`)
  })
  const buffers: MovableBuffer[] = []
  for (let index = 0; index < options.buffers; index++) {
    const buffer = await set.create(SIZE, { poison: options.poison === true })
    cells(buffer).fill(index + 1)
    buffers.push(buffer)
  }
  const quiet = options.threads.flat().every((call) => call.do === 'use' || call.do === 'create')
  const at = (index: number) => buffers[index] ?? world.fail(`no buffer ${index}`)
  let left = options.threads.flat().length

  const make = async (call: Call): Promise<void> => {
    switch (call.do) {
      case 'use': {
        const wanted = call.buffers.map(at)
        const restores = set.stats.restores
        await set.use(...wanted)
        if (!quiet || restores > set.stats.restores) return
        const out = wanted.filter((each) => !each.placement.startsWith('video'))
        if (out.length > 0) world.fail('use() resolved, and not all are there')
        return
      }
      case 'create':
        await (await set.create(SIZE)).close()
        return
      case 'away':
        await at(call.buffer).move(memory.exporter('elsewhere'))
        return
      case 'close':
        await at(call.buffer).close()
        return
      case 'end':
        await Promise.all([set.close(), set.close()])
    }
  }

  const finish = async (): Promise<void> => {
    for (const [index, buffer] of buffers.entries()) {
      if (buffer.isClosed) continue
      if (cells(buffer).some((cell) => cell !== index + 1)) world.fail(`buffer ${index} is torn`)
    }
    await set.close()
    if (memory.backings.some((each) => each.state !== 'freed')) world.fail('memory is left')
    if (set.stats.residentBytes !== 0) world.fail('bytes are charged at the end')
  }

  const offer = (thread: Call[], index: number): void => {
    const call = thread[index]
    if (call === undefined) return
    world.action(nameOf(call), () => {
      offer(thread, index + 1)
      const done = make(call)
        .catch((error: unknown) => {
          const code = (error as { code?: string }).code ?? String(error)
          if (options.allow?.includes(code) !== true) {
            world.fail(`${nameOf(call)} rejects with ${code}: ${String(error)}`)
          }
        })
        .then(() => {
          if (--left === 0) world.expect('the end', finish())
        })
      world.expect(nameOf(call), done)
    })
  }
  for (const thread of options.threads) offer(thread, 0)
}

function cells({ backing }: MovableBuffer): number[] {
  const inner = backing instanceof HeldBacking ? backing.inner : backing
  return (inner as ModelBacking).cells
}

function nameOf(call: Call): string {
  if (call.do === 'use') return `use ${call.buffers.join()}`
  return 'buffer' in call ? `${call.do} ${call.buffer}` : call.do
}
