/** A move's pause, split into the steps that the diagnostics channels tell. */
import type { BufferMove, ChannelTransition, MappingChange } from '../../lib/move-notify/trace.js'
import { trace } from '../../lib/move-notify/trace.js'

export const steps = ['stop', 'unmap', 'copy', 'map', 'restart', 'total'] as const
/** Nanoseconds. */
export type Split = Record<(typeof steps)[number], number>

/** Listens until disposed, and puts together what is told of one move. */
export class Pause {
  #transitions = new Map<string, ChannelTransition>()
  #changes = new Map<string, MappingChange>()
  #move: BufferMove | null = null
  /** What the clock of `cpu` showed at each transition. */
  #cpu = new Map<string, number>()
  readonly #clock: () => number
  readonly #onTransition = (message: unknown) => {
    const transition = message as ChannelTransition
    this.#transitions.set(transition.event, transition)
    this.#cpu.set(transition.event, this.#clock())
  }
  readonly #onChange = (message: unknown) => {
    const change = message as MappingChange
    this.#changes.set(change.change, change)
  }
  readonly #onMove = (message: unknown) => {
    this.#move = message as BufferMove
  }

  /** `clock`: of what the pause is to be told in by `cpu` too. */
  constructor(clock = () => 0) {
    this.#clock = clock
    trace.channel.subscribe(this.#onTransition)
    trace.mapping.subscribe(this.#onChange)
    trace.move.subscribe(this.#onMove)
  }

  /** By the clock that was given, from the gate's closing to its opening. */
  get cpu(): number {
    return (this.#cpu.get('restart') ?? NaN) - (this.#cpu.get('invalidate') ?? NaN)
  }

  /** Of the move since the last time. */
  take(): Split {
    const at = (event: string) => this.#transitions.get(event)?.at ?? NaN
    const [map, unmap] = [this.#changes.get('map'), this.#changes.get('unmap')]
    const move = this.#move
    if (move === null || map === undefined || unmap === undefined) throw new Error('no move')
    const copied = move.at - move.endMs + move.copiedMs
    const split = {
      stop: at('drained') - at('invalidate'),
      unmap: unmap.ms,
      copy: move.copiedMs - move.invalidatedMs,
      map: map.ms,
      // After the mapping and the copy, which may overlap; the gate may open before the mover
      // hears of the copy's end.
      restart: at('restart') - Math.min(at('restart'), Math.max(map.at, copied)),
      total: at('restart') - at('invalidate'),
    }
    for (const step of steps) {
      split[step] *= 1e6
      if (!(split[step] >= 0)) throw new Error(`${step} took ${split[step]} ns`)
    }
    this.#transitions.clear()
    this.#changes.clear()
    this.#move = null
    return split
  }

  [Symbol.dispose](): void {
    trace.channel.unsubscribe(this.#onTransition)
    trace.mapping.unsubscribe(this.#onChange)
    trace.move.unsubscribe(this.#onMove)
  }
}
