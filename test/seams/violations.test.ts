/** The conformance suite notices: toys that break one promise each, and the check that says so. */
import t from 'tap'
import { engineChecks, exporterChecks } from '../../lib/conformance/index.js'
import type {
  Backing,
  Batch,
  Completions,
  EngineChannel,
  EngineChannelOptions,
} from '../../lib/index.js'
import type { ToyChannel } from './toy-engine/channel.js'
import { ToyEngine } from './toy-engine/index.js'
import { ToyBacking, ToyExporter } from './toy-exporter/index.js'

type Break = (engine: ToyEngine) => void

/** Has each channel that is opened changed. */
const channels = (change: (channel: ToyChannel) => Partial<EngineChannel>): Break => {
  return (engine) => {
    const open = engine.openChannel.bind(engine)
    engine.openChannel = (options: EngineChannelOptions) => {
      const channel = open(options)
      return Object.assign(channel, change(channel))
    }
  }
}

const broken: [what: string, noticed: RegExp, how: Break][] = [
  [
    'an attachment that is open from the start',
    /unsealed/,
    (engine) => {
      const map = engine.map.bind(engine)
      engine.map = (id, ...more) => {
        map(id, ...more)
        engine.unseal(id)
      }
    },
  ],
  [
    'memory that stays mapped',
    /reaches the memory no more|ends as not mapped/,
    (engine) => (engine.unmap = () => undefined),
  ],
  [
    'completions that come twice',
    /completes once/,
    channels((channel) => {
      const reap = channel.reap.bind(channel)
      const again = (out: Completions) => {
        const count = reap(out)
        if (count === 0) return 0
        out.cookie[count] = out.cookie[0] ?? 0
        return count + 1
      }
      return { reap: again }
    }),
  ],
  [
    'attachments that come into use unheard',
    /come into use/,
    (engine) => {
      const open = engine.openChannel.bind(engine)
      engine.openChannel = (options) => open({ ...options, onUse: () => undefined })
    },
  ],
  [
    'a wrong row that is let pass',
    /a row that is wrong/,
    channels((channel) => {
      const post = channel.post.bind(channel)
      const lenient = (batch: Batch, first: number, count: number) => {
        try {
          return post(batch, first, count)
        } catch {
          return count
        }
      }
      return { post: lenient }
    }),
  ],
  [
    'an epoch that does not change',
    /forced/,
    channels((channel) => ({
      force: () => {
        channel.stop()
        return 1
      },
    })),
  ],
  ['a channel that closes twice', /closed/, channels((channel) => ({ arm: () => void channel }))],
  [
    'lengths the wrong way round',
    /says what it can do/,
    (engine) => {
      const [first] = engine.capabilities.operations
      Object.assign(first ?? {}, { minLength: 9, maxLength: 8 })
    },
  ],
]

for (const [what, noticed, how] of broken) {
  void t.test(`an engine with ${what}`, async (t) => {
    const open = () => {
      const engine = new ToyEngine('broken')
      how(engine)
      return Promise.resolve({ engine, close: () => engine.close() })
    }
    const check = engineChecks(open).filter(({ name }) => noticed.test(name))
    t.ok(check.length > 0)
    for (const { run } of check) await t.rejects(run(), { code: 'ERR_NOT_CONFORMING' })
  })
}

const brokenMemory: [what: string, noticed: RegExp, how: (backing: Backing) => void][] = [
  ['no poison', /poisoned/, (backing) => (backing.poison = () => Promise.resolve())],
  [
    'copies that are too short',
    /another/,
    (backing) => {
      const copyFrom = backing.copyFrom.bind(backing)
      backing.copyFrom = async (source) => {
        if (!(source instanceof ToyBacking)) await copyFrom(source)
      }
    },
  ],
  [
    'copies that know no ranges',
    /a range/,
    (backing) => {
      const copyFrom = backing.copyFrom.bind(backing)
      backing.copyFrom = (source) => copyFrom(source)
    },
  ],
  ['another placement', /zeroed/, (backing) => Object.assign(backing, { placement: 'elsewhere' })],
]

for (const [what, noticed, how] of brokenMemory) {
  void t.test(`an exporter with ${what}`, async (t) => {
    class Broken extends ToyExporter {
      override async allocate(size: number): Promise<Backing> {
        const backing = await super.allocate(size)
        how(backing)
        return backing
      }
    }
    const check = exporterChecks(new Broken('broken')).filter(({ name }) => noticed.test(name))
    t.ok(check.length > 0)
    for (const { run } of check) await t.rejects(run(), { code: 'ERR_NOT_CONFORMING' })
  })
}
