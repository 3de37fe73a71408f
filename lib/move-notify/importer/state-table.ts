import { P2pdmaError } from '../../errors.js'

/** By state and event, the state that follows. */
export type Transitions<S extends string, E extends string> = Record<S, Partial<Record<E, S>>>

/** The next state; throws where the table has none. `whose`: for the error. */
export function follow<S extends string, E extends string>(
  whose: string,
  table: Transitions<S, E>,
  state: S,
  event: E,
): S {
  const next = table[state][event]
  if (next === undefined) {
    throw new P2pdmaError(`${whose}: no transition for '${event}' in state '${state}'`, {
      code: 'ERR_ILLEGAL_TRANSITION',
    })
  }
  return next
}
