/**
 * The channel's states and events, as one table. What is not in it is illegal.
 */
export type ChannelState = 'running' | 'stopping' | 'stopped' | 'restoring' | 'failed' | 'closed'

/**
 * `asked`: it has to stop as soon as it has run for its minimum; its gate is open still, so
 * that `Channel.state` says `running`.
 */
export type ChannelTableState = ChannelState | 'asked'

export type ChannelEvent =
  /** A mapping that it uses must go, and it has not run for its minimum yet. */
  | 'ask'
  /** A mapping that it uses must go (step 1 of the mail): the gate closes. */
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
export type TransitionTable = Record<
  ChannelTableState,
  Partial<Record<ChannelEvent, ChannelTableState>>
>

export const transitions: TransitionTable = {
  running: { ask: 'asked', invalidate: 'stopping', fail: 'failed', close: 'closed' },
  asked: { invalidate: 'stopping', fail: 'failed', close: 'closed' },
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
