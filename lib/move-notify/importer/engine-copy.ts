/** A device that copies for an exporter: step 2 of the mail, by whoever has both places mapped. */
import { P2pdmaError } from '../../errors.js'
import type { Backing, Copy, CopyRange } from '../exporter/backing.js'
import { rangeToCopy } from '../exporter/copying.js'
import { Batch, Completions, Op, Status } from './batch.js'
import { Access, type Engine, type EngineChannel } from './engine.js'
import type { AttachmentIds } from './ids.js'

/** Null where the device does not copy between two places of ours, or cannot be given one. */
export function copyOf(
  engine: Engine,
  ids: AttachmentIds<unknown>,
  source: Backing,
  target: Backing,
): Copy | null {
  const { capabilities } = engine
  const copies = capabilities.operations.find(({ op, withPeer }) => op === Op.COPY && !withPeer)
  if (copies === undefined) return null
  const refuses = (backing: Backing, access: number) =>
    (capabilities.canMap?.(backing, access) ?? null) !== null
  if (refuses(source, Access.READ) || refuses(target, Access.WRITE)) return null
  return (ranges = [rangeToCopy(source, target)]) =>
    copy(engine, ids, { source, target, ranges, maxLength: copies.maxLength })
}

interface Work {
  source: Backing
  target: Backing
  ranges: readonly CopyRange[]
  maxLength: number
}

async function copy(
  engine: Engine,
  ids: AttachmentIds<unknown>,
  { source, target, ranges, maxLength }: Work,
): Promise<void> {
  const [from, to] = [ids.reserve(), ids.reserve()]
  let channel: EngineChannel | null = null
  try {
    await engine.map(from, source, source.size, Access.READ)
    await engine.map(to, target, target.size, Access.WRITE)
    engine.unseal(from)
    engine.unseal(to)
    let wake: () => void = () => undefined
    channel = engine.openChannel({ depth: 1, onCompletion: () => wake() })
    const batch = new Batch(1)
    const done = new Completions(1)
    for (const { sourceOffset, targetOffset, length } of inPieces(ranges, maxLength)) {
      batch.op[0] = Op.COPY
      batch.source[0] = from
      batch.target[0] = to
      batch.sourceOffset[0] = sourceOffset
      batch.targetOffset[0] = targetOffset
      batch.length[0] = length
      if (channel.post(batch, 0, 1) !== 1) throw failed(engine, 'takes no work')
      while (channel.reap(done) === 0) {
        const woken = new Promise<void>((resolve) => (wake = resolve))
        channel.arm()
        await woken
      }
      const status = done.status[0]
      if (status !== Status.OK) throw failed(engine, `has ended with status ${status}`)
    }
  } finally {
    channel?.close()
    for (const id of [from, to]) {
      await engine.unmap(id)
      engine.release?.(id)
      ids.release(id)
    }
  }
}

function* inPieces(ranges: readonly CopyRange[], maxLength: number): Generator<CopyRange> {
  for (const { sourceOffset, targetOffset, length: size } of ranges) {
    for (let at = 0; at < size; at += maxLength) {
      const length = Math.min(maxLength, size - at)
      yield { sourceOffset: sourceOffset + at, targetOffset: targetOffset + at, length }
    }
  }
}

function failed(engine: Engine, what: string): P2pdmaError {
  return new P2pdmaError(`The copy by ${engine.name} ${what}`, { code: 'EIO' })
}
