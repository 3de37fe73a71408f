/** `p2pdma smoke`: buffers move while transfers run between them, and every byte is checked. */
import { closeSync, openSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import type { P2pdmaError } from '../errors.js'
import {
  FAULTS,
  LIMITS,
  runSmoke,
  type SmokeOptions,
  type SmokeReport,
  TapWriter,
  withDefaults,
} from '../smoke/index.js'
import { parseOptions, UsageError, wholeNumber } from './args.js'

export const summary = 'move buffers under live transfers and check every byte'

export const usage = `[OPTIONS]

  --engine NAME      the engine (software)
  --from EXPORTER    where the buffers are made (memfd)
  --to EXPORTER,...  where they move, in turn, and back to --from (memfd)
                     exporters: memfd udmabuf heap:NAME drm:DRIVER
  --size BYTES       of each buffer, a multiple of 4096, 65536 at least (4194304)
  --buffers N        pairs of a source and a target (2)
  --moves N          end after so many moves (200, and 1 GiB verified)
  --seconds S        end after so many seconds; with --moves, whichever comes first
  --seed N           repeat the order of blocks and moves
  --json FILE|-      write the report as JSON; '-': to stdout, and TAP to stderr
  --inject FAULT     break one operation on purpose: ${FAULTS.join(', ')}

Exit codes: 0 all is well, 1 it is not, 2 this usage, 130 interrupted.`

const options = {
  engine: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  size: { type: 'string' },
  buffers: { type: 'string' },
  moves: { type: 'string' },
  seconds: { type: 'string' },
  seed: { type: 'string' },
  json: { type: 'string' },
  inject: { type: 'string' },
  help: { type: 'boolean' },
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
  const { engine, from, to, inject, json } = values
  if (json === '') throw new UsageError('--json needs a file, or -')
  const fault = FAULTS.find((name) => name === inject)
  if (inject !== undefined && fault === undefined) {
    throw new UsageError(`--inject must be one of ${FAULTS.join(', ')}, not '${inject}'`)
  }
  const settings = withDefaults({
    ...(engine !== undefined && { engine }),
    ...(from !== undefined && { from }),
    ...(to !== undefined && { to: to.split(',') }),
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
  const stream = json === '-' ? process.stderr : process.stdout
  const tap = new TapWriter((text) => {
    progress.show('')
    stream.write(text)
  })
  // Before the run, so that a path that cannot be written to is known at once.
  const file = json === null || json === '-' ? null : openSync(json, 'w')
  try {
    const result = await runSmoke(settings, { tap, progress: progress.show }, interrupt.signal)
    writeReport(result.report, json, file)
    const { error } = result.report
    if (error !== null) process.stderr.write(`p2pdma smoke: ${error}\n`)
    const code = result.report.interrupted ? interrupt.exitCode : result.report.ok ? 0 : 1
    // What hangs would keep the process alive.
    if (result.hung) process.exit(code)
    return code
  } catch (error) {
    if ((error as P2pdmaError).code !== 'ERR_INVALID_ARG_VALUE') throw error
    throw new UsageError((error as P2pdmaError).message)
  } finally {
    if (file !== null) closeSync(file)
    interrupt.stop()
  }
}

function writeReport(report: SmokeReport, json: string | null, file: number | null): void {
  const text = `${JSON.stringify(report, null, 2)}\n`
  if (json === '-') process.stdout.write(text)
  else if (file !== null) writeSync(file, text)
}

/** The first signal ends the run in good order, the second at once. */
class Interrupt {
  readonly #abort = new AbortController()
  exitCode = 0
  readonly #handler = (name: NodeJS.Signals) => {
    const code = 128 + constants.signals[name]
    if (this.#abort.signal.aborted) process.exit(code)
    this.exitCode = code
    this.#abort.abort()
  }

  constructor() {
    process.on('SIGINT', this.#handler)
    process.on('SIGTERM', this.#handler)
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
    process.stderr.write(`\r\x1b[K${line.slice(0, 100)}`)
  }
}
