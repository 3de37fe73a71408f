/**
 * Deliberate faults: what a broken device would do. They exist so that the
 * tests and `p2pdma smoke --inject` can show that it is noticed.
 */
import { Fault } from '../../abi.js'
import { P2pdmaError, checkInteger, checkOptions, looksLike, typeError } from '../../errors.js'
import { SoftwareChannel } from './channel.js'

const kinds: Record<SoftwareFault['kind'], number> = {
  lost: Fault.LOST,
  doubled: Fault.DOUBLED,
  torn: Fault.TORN,
  stray: Fault.STRAY,
  stall: Fault.STALL,
  'doubled-completion': Fault.DOUBLED_COMPLETION,
}

export type SoftwareFault = { channel?: SoftwareChannel | number } & (
  | {
      /**
       * `lost`: the next COPY completes with OK and has written nothing.
       * `torn`: the next COPY completes with OK and has written its first half.
       * `doubled-completion`: the next operation completes twice.
       */
      kind: 'lost' | 'torn' | 'doubled-completion'
    }
  | {
      /**
       * The next COPY is executed again after its completion, against the
       * mappings and bytes of that moment: when `after` more operations of its
       * channel have completed (default 1), or with 0 at the channel's next
       * idle moment.
       */
      kind: 'doubled'
      after?: number
    }
  | {
      /**
       * The engine keeps the range that its next unmap retires, and writes 8
       * bytes into it, past its own check: after `delayMs`, or by default as
       * soon as the exporter has overwritten that place (with its poison), so
       * that there is something to find. `offset`: bytes from the attachment's
       * start, default 0.
       */
      kind: 'stray'
      delayMs?: number
      offset?: number
    }
  | {
      /**
       * The next operation hangs in its middle, and the channel answers no
       * stop: for `ms`, or by default until `unstall()`.
       */
      kind: 'stall'
      ms?: number
    }
)

/** A fault in the native side's numbers. */
export interface EncodedFault {
  kind: number
  channel: number
  parameter: number
  offset: number
}

const NONE = -1

/** Checks a fault and encodes it. */
export function encodeFault(fault: SoftwareFault): EncodedFault {
  const name: unknown = checkOptions(fault, 'fault').kind
  if (typeof name !== 'string') throw typeError('fault.kind', 'a string', name)
  const kind = new Map(Object.entries(kinds)).get(name)
  if (kind === undefined) {
    throw new P2pdmaError(
      `fault.kind must be one of ${Object.keys(kinds).join(', ')}, not ${JSON.stringify(name)}`,
      {
        code: 'ERR_INVALID_ARG_VALUE',
        argument: 'fault.kind',
      },
    )
  }
  const { channel } = fault
  const encoded: EncodedFault = { kind, channel: 0, parameter: NONE, offset: 0 }
  if (looksLike(channel, { index: 'number' }) && channel instanceof SoftwareChannel) {
    encoded.channel = channel.index
  } else if (channel !== undefined) encoded.channel = checkInteger('fault.channel', channel, 1)
  switch (fault.kind) {
    case 'doubled':
      encoded.parameter = checkInteger('fault.after', fault.after ?? 1, 0)
      break
    case 'stray':
      encoded.offset = checkInteger('fault.offset', fault.offset ?? 0, 0)
      if (fault.delayMs !== undefined) encoded.parameter = nanoseconds('delayMs', fault.delayMs)
      break
    case 'stall':
      if (fault.ms !== undefined) encoded.parameter = nanoseconds('ms', fault.ms)
      break
    default:
  }
  return encoded
}

function nanoseconds(name: string, ms: number): number {
  return checkInteger(`fault.${name}`, ms, 0, 3_600_000) * 1_000_000
}
