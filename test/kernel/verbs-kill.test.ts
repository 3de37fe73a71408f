/** A peer that is killed, in each state of either end: the kernel takes all back, the survivor goes on. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import type { Exporter } from '../../lib/move-notify/exporter/backing.js'
import type { ChannelState } from '../../lib/move-notify/importer/channel-states.js'
import { type ChannelTransition, trace } from '../../lib/move-notify/trace.js'
import { kill, meet, type Met, said } from './verbs-kill-support.js'
import { rdmaResources, settledResources } from './verbs-support.js'

t.setTimeout(900_000)

/** One survives all of its peers. */
const before = rdmaResources()
const engine = await VerbsEngine.open('rxe0')
t.teardown(() => engine.close())

/** Work of every kind towards the peer, until `stop()`. */
function traffic({ channel, attachment, remote }: Met) {
  const codes: string[] = []
  const note = (error: NodeJS.ErrnoException) => void codes.push(error.code ?? error.message)
  let alive = true
  const writing = (async () => {
    while (alive) {
      await channel.copy(attachment, 0, remote, 32 << 10, 16 << 10).catch(note)
      // One that is refused at once leaves nobody else a turn.
      await sleep(1)
    }
  })()
  const sending = channel.send(attachment, 0, 100).catch(note)
  const stop = async () => {
    alive = false
    await Promise.all([writing, sending])
    return codes
  }
  return { stop }
}

/** What holds once the peer has been killed, whatever the state. */
async function survives(t: Test, met: Met, codes: string[], idle: string): Promise<void> {
  const { channel, attachment, remote, importer, ours } = met
  t.ok(
    codes.length > 0 && codes.every((code) => /^ERR_(PEER_LOST|OUTCOME_UNKNOWN)$/.test(code)),
    [...new Set(codes)].join(),
  )
  await t.rejects(channel.copy(attachment, 0, remote, 0, 8), { code: 'ERR_PEER_LOST' })
  t.equal((await ours.move(memfd())).to, 'memfd', 'what is ours still moves')
  t.equal(channel.state, 'running')
  await importer.close()
  t.equal(await settledResources(idle), idle, 'every object of the kernel is given back')
}

// Either end is `running` while the other is idle.
const frozen = ['stopping', 'stopped', 'restoring'].map((state) => `frozen ${state}`)
for (const state of ['idle', 'writing', 'receiving', 'moving', 'torn apart', ...frozen]) {
  t.test(`killed while ${state}`, async (t) => {
    const idle = rdmaResources()
    const met = await meet(t, engine, state)
    const { stop } = traffic(met)
    await said(met)
    // One that is frozen does not answer the pause that comes with this.
    const moving = met.ours.move(udmabuf())
    if (state.startsWith('frozen')) await sleep(100)
    await kill(met)
    await moving
    await survives(t, met, await stop(), idle)
  })
}

/** memfds whose copies take a while, in which whoever has stopped for them waits. */
const slow: Exporter = {
  placement: 'memfd',
  kind: 'embedded',
  allocate: async (size) => {
    const backing = await memfd().allocate(size)
    const copyFrom = backing.copyFrom.bind(backing)
    backing.copyNow = () => false
    backing.copyFrom = (source) => sleep(300).then(() => copyFrom(source))
    return backing
  },
}

/** Calls back in the very transition of the survivor's channel that leads there. */
function on({ importer }: Met, state: ChannelState, there: () => void): () => void {
  const look = (message: unknown) => {
    const { importer: name, to } = message as ChannelTransition
    if (name !== importer.name || to !== state) return
    leave()
    there()
  }
  const leave = () => void trace.channel.unsubscribe(look)
  trace.channel.subscribe(look)
  return leave
}

for (const state of ['stopping', 'stopped', 'restoring'] as const) {
  t.test(`killed while the survivor is ${state}`, async (t) => {
    const idle = rdmaResources()
    // One that is deaf does not answer the pause: the survivor stays where it is.
    const met = await meet(t, engine, state === 'stopping' ? 'deaf' : 'idle')
    const { stop } = traffic(met)
    await said(met)
    let killed: Promise<void> | undefined
    const seen: string[] = []
    on(met, state, () => {
      seen.push(met.channel.state)
      killed =
        state === 'stopping'
          ? sleep(100).then(() => {
              seen.push(met.channel.state)
              return kill(met)
            })
          : kill(met)
    })
    const { from, to } = await met.ours.move(slow)
    t.same([from, to], ['memfd', 'memfd'])
    while (killed === undefined) await sleep(1)
    await killed
    t.same(seen, state === 'stopping' ? [state, state] : [state])
    await survives(t, met, await stop(), idle)
    t.equal(met.channel.stats.forcedStops, 0, 'the loss of the peer has ended the wait')
  })
}

t.test('nothing is left of any of them', async (t) => {
  await engine.close()
  t.equal(await settledResources(before), before)
})
