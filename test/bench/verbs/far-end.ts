/** The far end as the near one sees it: a process, and the queue pairs to it. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { VerbsEngine } from '../../../lib/engines/index.js'
import type { Peer } from '../../../lib/engines/verbs/peer.js'
import type { Device } from './devices.js'
import type { Wait } from './pinger.js'

export interface FarOptions {
  device: string
  gidIndex: number
  port: number
  queues: number
  depth: number
  /** Of its buffer, which is granted on each queue pair as `far-0`, `far-1`, .... */
  size: number
}

export type FarRequest =
  | { what: 'echo'; count: number; size: number; wait: Wait }
  /** From now on, into what is granted under this label on its first queue pair. */
  | { what: 'write'; label: string; size: number; inFlight: number; everyMs: number }
  /** The longest time without a completion since this was asked the last time. */
  | { what: 'gap' }

export interface FarReply {
  /** Milliseconds. */
  gap?: number
  writes?: number
}

const PATIENCE_MS = 240_000

export class FarEnd {
  readonly peer: Peer
  /** Names of the queue pairs at this end. */
  readonly queues: readonly string[]
  readonly #child: ChildProcess
  /** Rejects when it ends. */
  readonly #ended: Promise<never>

  private constructor(
    child: ChildProcess,
    ended: Promise<never>,
    peer: Peer,
    queues: readonly string[],
  ) {
    this.#child = child
    this.#ended = ended
    this.peer = peer
    this.queues = queues
  }

  static async start(
    engine: VerbsEngine,
    { name: device, gidIndex }: Device,
    settings: Pick<FarOptions, 'queues' | 'depth' | 'size'>,
  ): Promise<FarEnd> {
    const names: string[] = []
    let child: ChildProcess | null = null
    const { promise, resolve } = promised<Peer>()
    await using listener = await engine.listen({ host: '127.0.0.1' }, (peer) => {
      peer.on('queue', (queue) => {
        if (names.push(queue) === settings.queues) resolve(peer)
      })
    })
    try {
      const options: FarOptions = { device, gidIndex, port: listener.port, ...settings }
      const far = fileURLToPath(new URL('far.js', import.meta.url))
      child = fork(far, [JSON.stringify(options)])
      const ended = once(child, 'exit').then(() => {
        throw new Error('the far end has ended')
      })
      ended.catch(() => {})
      const peer = await soon(Promise.race([promise, ended]))
      return new FarEnd(child, ended, peer, names)
    } catch (error) {
      child?.kill('SIGKILL')
      throw error
    }
  }

  /** Rejects where the far end dies, or nothing comes of it. */
  async ask(request: FarRequest): Promise<FarReply> {
    const reply = once(this.#child, 'message') as Promise<[FarReply]>
    this.#child.send(request)
    return (await this.during(reply))[0]
  }

  /** Resolves with what `work` does, unless the far end dies or nothing comes of it. */
  during<T>(work: Promise<T>): Promise<T> {
    return soon(Promise.race([work, this.#ended]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exited = once(this.#child, 'exit')
      this.#child.kill('SIGKILL')
      await exited
    }
    await this.peer.close()
  }
}

async function soon<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const fail = () => reject(new Error(`nothing came of it in ${PATIENCE_MS} ms`))
    timer = setTimeout(fail, PATIENCE_MS)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function promised<T>() {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((settle) => (resolve = settle))
  return { promise, resolve }
}
