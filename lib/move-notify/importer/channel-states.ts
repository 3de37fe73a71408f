/**
 * The channel's states and events, as one table. What is not in it is illegal.
 */
import { P2pdmaError } from '../../errors.js'

export type ChannelState = 'running' | 'stopping' | 'stopped' | 'restoring' | 'failed' | 'closed'

export type ChannelEvent =
  /** A mapping that it uses must go (step 1 of the mail). */
  | 'invalidate'
  /** The device is quiet and its completions have been seen (1.1, 1.2). */
  | 'drained'
  /** The drain's deadline passed; the channel went to error instead. */
  | 'forced'
  /** The restore worker begins (3.1). */
  | 'restore'
  /** The invalid list is empty and the epoch unchanged: the gate opens (3.3). */
  | 'restart'
  /** Even the forced path failed. */
  | 'fail'
  | 'close'

/** By state and event, the state that follows. */
export type TransitionTable = Record<ChannelState, Partial<Record<ChannelEvent, ChannelState>>>

export const transitions: TransitionTable = {
  running: { invalidate: 'stopping', fail: 'failed', close: 'closed' },
  stopping: {
    invalidate: 'stopping',
    drained: 'stopped',
    forced: 'stopped',
    fail: 'failed',
    close: 'closed',
  },
  stopped: { invalidate: 'stopped', restore: 'restoring', fail: 'failed', close: 'closed' },
  // An invalidation cancels the attempt: nothing has been restarted yet, so the device is quiet.
  restoring: { invalidate: 'stopped', restart: 'running', fail: 'failed', close: 'closed' },
  failed: { fail: 'failed', close: 'closed' },
  closed: { close: 'closed' },
}

/** The next state; throws where the table has none. */
export function nextState(state: ChannelState, event: ChannelEvent): ChannelState {
  const next = transitions[state][event]
  if (next === undefined) {
    throw new P2pdmaError(`channel: no transition for '${event}' in state '${state}'`, {
      code: 'ERR_ILLEGAL_TRANSITION',
    })
  }
  return next
}
