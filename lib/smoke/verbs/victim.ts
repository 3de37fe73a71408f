/** A peer in a process of its own, to be killed. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Peer } from '../../engines/verbs/peer.js'
import { P2pdmaError } from '../../errors.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import { withDeadline, withSignal } from '../../move-notify/reservation/deadline.js'
import type { RemoteAttachment } from '../../move-notify/importer/remote-attachment.js'
import { type Layout, payloadOffset } from '../layout.js'
import type { Side } from '../pair.js'
import { DEPTH } from './ends.js'
import type { Run } from '../stage.js'
import type { VerbsPlant, VerbsStation } from './plant.js'
import { SERVED } from './serve.js'

/** Node takes a second to start, and half a minute where it is emulated on a busy machine. */
const START_MS = 180_000
/** It answers with code that runs for the first time. */
const HELLO_MS = 30_000
/** How long the survivor may take to know. */
const TELL_MS = 60_000
/** Writes under way, and done before it is killed. */
const WINDOW = 8
const BEFORE = 32

const main = fileURLToPath(new URL('../../cli/main.js', import.meta.url))

interface Parts {
  child: ChildProcess
  peer: Peer
  channel: Channel
  remote: RemoteAttachment
  run: Run
}

export class Victim {
  readonly #child: ChildProcess
  readonly #peer: Peer
  readonly #channel: Channel
  readonly #remote: RemoteAttachment
  readonly #run: Run

  private constructor({ child, peer, channel, remote, run }: Parts) {
    this.#child = child
    this.#peer = peer
    this.#channel = channel
    this.#remote = remote
    this.#run = run
  }

  /** Starts one on the target's device, and connects the source's to it. */
  static async open({ engines }: VerbsPlant, { source }: VerbsStation, run: Run): Promise<Victim> {
    const [first, second] = engines
    const { name, portNum, gid } = second.port
    const args = [main, 'serve', '--device', name, '--host', '127.0.0.1', '--port', '0']
    args.push('--port-num', String(portNum), '--gid-index', String(gid.index), '--once', '--still')
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] })
    try {
      const port = await withSignal(readyPort(child), run.signal)
      const peer = await first.connect({
        host: '127.0.0.1',
        port,
        timeoutMs: HELLO_MS,
        signal: run.signal,
      })
      // It is told by what waits for it; nobody else may listen.
      peer.on('closed', () => {})
      const queue = await peer.openQueue({ depth: DEPTH })
      const channel = source.importer.channel({ queue, depth: DEPTH })
      const remote = (await peer.offered(`${SERVED}-0`)).attach(source.importer)
      return new Victim({ child, peer, channel, remote, run })
    } catch (error) {
      child.kill('SIGKILL')
      throw error
    }
  }

  /** Kills it in the middle; how many writes were done, and what the next ones rejected with. */
  async killWhileWriting(
    { attachment }: Side,
    layout: Layout,
  ): Promise<{ written: number; error: unknown }> {
    let written = 0
    let error: unknown = null
    const offset = payloadOffset(layout, 0)
    const loop = async () => {
      try {
        while (error === null) {
          await this.#run.pacer.take(layout.payload)
          await this.#channel.copy(attachment, offset, this.#remote, offset, layout.payload)
          if (++written === BEFORE) this.#child.kill('SIGKILL')
        }
      } catch (thrown) {
        error ??= thrown
      }
    }
    const loops = Promise.all(Array.from({ length: WINDOW }, loop))
    const late = () =>
      new P2pdmaError('nobody was told that the peer is gone', { code: 'ETIMEDOUT' })
    await withSignal(withDeadline(loops, TELL_MS, late), this.#run.signal)
    return { written, error }
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#channel.close()
    await this.#remote.close()
    await this.#peer.close()
  }
}

/** What it says first. */
async function readyPort(child: ChildProcess): Promise<number> {
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  const ended = once(child, 'close').then(() => null)
  const line = once(lines, 'line') as Promise<[string]>
  const late = () => new P2pdmaError('p2pdma serve did not start', { code: 'ETIMEDOUT' })
  const first = await withDeadline(Promise.race([line, ended]), START_MS, late)
  if (first === null) throw new P2pdmaError('p2pdma serve ended', { code: 'ERR_SMOKE_FAILED' })
  return (JSON.parse(first[0]) as { port: number }).port
}
