/** A peer that is killed, in each state: the kernel takes all back, the survivor goes on. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { VerbsEngine } from '../../lib/engines/verbs/engine.js'
import type { Peer } from '../../lib/engines/verbs/peer.js'
import { memfd, udmabuf } from '../../lib/exporters/index.js'
import { buffer } from './verbs-engine-support.js'
import { rdmaResources, settledResources } from './verbs-support.js'

t.setTimeout(200_000)

const child = fileURLToPath(new URL('verbs-kill-child.js', import.meta.url))

for (const state of ['idle', 'writing', 'receiving', 'moving']) {
  t.test(`killed while ${state}`, async (t) => {
    const before = rdmaResources()
    const engine = await VerbsEngine.open('rxe0')
    t.teardown(() => engine.close())
    const running: ReturnType<typeof spawn>[] = []
    const arrived = new Promise<Peer>((resolve) => {
      void engine.listen({ host: '127.0.0.1' }, resolve).then(({ port }) => {
        const process_ = spawn(process.execPath, [child, state, String(port)], {
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        running.push(process_)
      })
    })
    const peer = await arrived
    const [queue] = (await once(peer, 'queue')) as [string]
    const importer = engine.importer({ stopTimeoutMs: 2000 })
    const channel = importer.channel({ queue, depth: 16 })
    const ours = await buffer(t, 64 << 10, memfd())
    const attachment = await importer.attach(ours)
    peer.grant(channel, attachment, { label: 'parent' })
    const remote = (await peer.offered('child')).attach(importer)
    const [process_] = running
    if (process_?.stdout == null) throw new Error('no child')
    const errors: string[] = []
    const note = (error: NodeJS.ErrnoException) => void errors.push(error.code ?? error.message)
    let alive = true
    const writing = (async () => {
      while (alive) {
        await channel.copy(attachment, 0, remote, 32 << 10, 16 << 10).catch(note)
        // One that is refused at once leaves nobody else a turn.
        await sleep(1)
      }
    })()
    const sending = channel.send(attachment, 0, 100).catch(note)
    await once(process_.stdout, 'data')
    const moving = ours.move(udmabuf())
    const closed = once(peer, 'closed')
    process_.kill('SIGKILL')
    await once(process_, 'close')
    await closed
    alive = false
    await Promise.all([writing, sending, moving])
    t.ok(
      errors.every((code) => /^ERR_(PEER_LOST|OUTCOME_UNKNOWN|CLOSED)$/.test(code)),
      errors.join(),
    )
    await t.rejects(channel.copy(attachment, 0, remote, 0, 8), { code: 'ERR_PEER_LOST' })
    t.equal((await ours.move(memfd())).to, 'memfd', 'what is ours still moves')
    await engine.close()
    t.equal(await settledResources(before), before, 'every object of the kernel is given back')
  })
}
