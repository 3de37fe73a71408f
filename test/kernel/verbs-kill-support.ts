/** The survivor's end for the tests that kill its peer. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import type { Peer } from '../../lib/engines/verbs/peer.js'
import { memfd } from '../../lib/exporters/index.js'
import { buffer } from './verbs-engine-support.js'

const child = fileURLToPath(new URL('verbs-kill-child.js', import.meta.url))

/** Starts a peer that goes to a state and says so; see verbs-kill-child.ts. */
export async function meet(t: Test, engine: VerbsEngine, state: string) {
  let arrived: (peer: Peer) => void = () => undefined
  const arrival = new Promise<Peer>((resolve) => (arrived = resolve))
  await using listener = await engine.listen({ host: '127.0.0.1' }, arrived)
  const victim = spawn(process.execPath, [child, state, String(listener.port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => victim.kill('SIGKILL'))
  const peer = await arrival
  const [queue] = (await once(peer, 'queue')) as [string]
  const importer = engine.importer({ stopTimeoutMs: 2000, minRunMs: 0 })
  const channel = importer.channel({ queue, depth: 16 })
  const ours = await buffer(t, 64 << 10, memfd())
  const attachment = await importer.attach(ours)
  peer.grant(channel, attachment, { label: 'parent' })
  const remote = (await peer.offered('child')).attach(importer)
  return { victim, peer, importer, channel, ours, attachment, remote }
}

export type Met = Awaited<ReturnType<typeof meet>>

/** It has said that it is there. */
export async function said({ victim }: Met): Promise<void> {
  if (victim.stdout === null) throw new Error('no child')
  await once(victim.stdout, 'data')
}

/** Kills it, and waits until that is known here. */
export async function kill({ victim, peer }: { victim: ChildProcess; peer: Peer }): Promise<void> {
  const closed = peer.closed ? undefined : once(peer, 'closed')
  victim.kill('SIGKILL')
  if (victim.exitCode === null && victim.signalCode === null) await once(victim, 'close')
  await closed
}
