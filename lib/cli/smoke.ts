/** `p2pdma smoke`: buffers move while transfers run between them, and every byte is checked. */
import { closeSync, openSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import type { P2pdmaError } from '../errors.js'
import {
  FAULTS,
  LIMITS,
  runSmoke,
  type SmokeOptions,
  TapWriter,
  withDefaults,
} from '../smoke/index.js'
import { parseOptions, UsageError, wholeNumber } from './args.js'

export const summary = 'move buffers under live transfers and check every byte'

export const usage = `[OPTIONS]

  --engine NAME      software, or vfio: two NICs behind the IOMMU, one of which sends
                     what the other receives; vfio:ADDRESS,ADDRESS names them, else
                     two are taken that are bound to vfio-pci; or verbs: RDMA between
                     two devices; verbs:DEVICE,DEVICE names them, else those are taken
                     that have an active port; one alone is both ends (software)
  --peer HOST[:PORT] with verbs: the other end is there, where \`p2pdma serve\` runs
  --memory ADDRESS   with vfio: the device whose BAR is video memory (the one that is
                     bound to vfio-pci and has the largest)
  --witness          with vfio: only frames to a revoked mapping, and the IOMMU's faults
  --from EXPORTER    where the buffers are made (memfd)
  --to EXPORTER,...  where they move, in turn, and back to --from (memfd)
                     exporters: memfd udmabuf heap:NAME drm:DRIVER
                     vfio-bar[:ADDRESS]
  --size BYTES       of each buffer, a multiple of 4096, 65536 at least (4194304;
                     with vfio and verbs 524288)
  --buffers N        pairs of a source and a target (2)
  --moves N          end after so many moves (200, and in software 1 GiB verified)
  --seconds S        end after so many seconds; with --moves, whichever comes first
  --seed N           repeat the order of blocks and moves
  --json FILE|-      write the report as JSON; '-': to stdout, and TAP to stderr
  --inject FAULT     break one operation on purpose: ${FAULTS.join(', ')}

Exit codes: 0 all is well, 1 it is not, 2 this usage, 130 interrupted, 141 nobody
reads the output.`

const options = {
  engine: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  size: { type: 'string' },
  buffers: { type: 'string' },
  moves: { type: 'string' },
  memory: { type: 'string' },
  peer: { type: 'string' },
  witness: { type: 'boolean' },
  seconds: { type: 'string' },
  seed: { type: 'string' },
  json: { type: 'string' },
  inject: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const

export async function run(argv: string[]): Promise<number> {
  const values = parseOptions(argv, options)
  if (values.help === true) {
    process.stdout.write(`usage: p2pdma smoke ${usage}\n`)
    return 0
  }
  const number = (name: 'size' | 'buffers' | 'moves' | 'seconds' | 'seed') => {
    const text = values[name]
    const { min, max } = LIMITS[name]
    return text === undefined ? {} : { [name]: wholeNumber(name, text, min, max) }
  }
  const { engine, from, to, inject, json, memory, peer, witness } = values
  if (json === '') throw new UsageError('--json needs a file, or -')
  const fault = FAULTS.find((name) => name === inject)
  if (inject !== undefined && fault === undefined) {
    throw new UsageError(`--inject must be one of ${FAULTS.join(', ')}, not '${inject}'`)
  }
  const settings = withDefaults({
    ...(engine !== undefined && { engine }),
    ...(from !== undefined && { from }),
    ...(to !== undefined && { to: to.split(',') }),
    ...(memory !== undefined && { memory }),
    ...(peer !== undefined && { peer }),
    ...(witness !== undefined && { witness }),
    ...(fault !== undefined && { inject: fault }),
    ...number('size'),
    ...number('buffers'),
    ...number('moves'),
    ...number('seconds'),
    ...number('seed'),
  })
  const { multipleOf } = LIMITS.size
  if (settings.size % multipleOf !== 0) {
    throw new UsageError(`--size must be a multiple of ${multipleOf}, not '${settings.size}'`)
  }
  return smoke(settings, json ?? null)
}

async function smoke(settings: SmokeOptions, json: string | null): Promise<number> {
  const interrupt = new Interrupt()
  const progress = new Progress(json !== '-')
  const output = new Output((code) => interrupt.end(code))
  const stream = json === '-' ? process.stderr : process.stdout
  const tap = new TapWriter((text) => {
    progress.show('')
    output.write(stream, text)
  })
  // Before the run, so that a path that cannot be written to is known at once.
  const file = json === null || json === '-' ? null : openSync(json, 'w')
  try {
    const result = await runSmoke(settings, { tap, progress: progress.show }, interrupt.signal)
    const text = `${JSON.stringify(result.report, null, 2)}\n`
    if (file !== null) writeSync(file, text)
    else if (json === '-') output.write(process.stdout, text)
    const { error, ok } = result.report
    if (error !== null) {
      output.write(process.stderr, `p2pdma smoke: ${error.replaceAll('; hint: ', '\nhint: ')}\n`)
    }
    await output.flushed()
    const code = interrupt.exitCode ?? (ok ? 0 : 1)
    // What hangs would keep the process alive.
    if (result.hung) process.exit(code)
    return code
  } catch (error) {
    const { code, message } = error as P2pdmaError
    if (code !== 'ERR_INVALID_ARG_VALUE' && code !== 'ERR_OUT_OF_RANGE') throw error
    throw new UsageError(message)
  } finally {
    if (file !== null) closeSync(file)
    interrupt.stop()
  }
}

/**
 * Writes to stdout and stderr. When nobody reads any more, or the disk is full,
 * it calls `failed` with an exit code, once, and drops the rest.
 */
class Output {
  readonly #failed: (code: number) => void
  #broken = false
  #last: Promise<void> = Promise.resolve()

  constructor(failed: (code: number) => void) {
    this.#failed = failed
    // Beside the callback of a write the stream emits the error as well.
    for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  }

  write(stream: NodeJS.WriteStream, text: string): void {
    if (this.#broken) return
    this.#last = new Promise((resolve) => {
      stream.write(text, (error) => {
        if (error !== null && error !== undefined) this.#break(error)
        resolve()
      })
    })
  }

  /** All that was written has arrived, or has failed. */
  flushed(): Promise<void> {
    return this.#last
  }

  #break(error: NodeJS.ErrnoException): void {
    if (this.#broken) return
    this.#broken = true
    // As a signal would have ended us.
    if (error.code === 'EPIPE') return this.#failed(128 + constants.signals.SIGPIPE)
    process.stderr.write(`p2pdma smoke: the output cannot be written: ${error.message}\n`)
    this.#failed(1)
  }
}

/** The first signal ends the run in good order, the second at once. */
class Interrupt {
  readonly #abort = new AbortController()
  /** Null where nothing ended the run. */
  exitCode: number | null = null
  readonly #handler = (name: NodeJS.Signals) => {
    const code = 128 + constants.signals[name]
    if (this.#abort.signal.aborted) process.exit(code)
    this.end(code)
  }

  constructor() {
    process.on('SIGINT', this.#handler)
    process.on('SIGTERM', this.#handler)
  }

  /** Ends the run in good order. */
  end(code: number): void {
    this.exitCode = code
    this.#abort.abort()
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  stop(): void {
    process.off('SIGINT', this.#handler)
    process.off('SIGTERM', this.#handler)
  }
}

/** One line on a terminal, gone when something else is written; nothing elsewhere. */
class Progress {
  readonly #shown: boolean
  #dirty = false

  constructor(wanted: boolean) {
    this.#shown = wanted && process.stderr.isTTY
  }

  readonly show = (line: string): void => {
    if (!this.#shown || (line === '' && !this.#dirty)) return
    this.#dirty = line !== ''
    process.stderr.write(`\r\x1b[K${line.slice(0, process.stderr.columns - 1 || 79)}`)
  }
}
