/** `p2pdma smoke`: buffers move while transfers run between them, and every byte is checked. */
import type { P2pdmaError } from '../errors.js'
import { EFFECT_NAMES, EFFECT_SCENARIOS, EFFECTS, parseEffects } from '../smoke/effects.js'
import {
  FAULTS,
  LIMITS,
  type ProfileName,
  PROFILES,
  type SmokeOptions,
  withDefaults,
} from '../smoke/options.js'
import type { SmokeReport } from '../smoke/report.js'
import { type Dialect, DIALECTS, TapWriter } from '../smoke/tap.js'
import {
  byteCount,
  decimal,
  parseOptions,
  printError,
  UsageError,
  wholeNumber,
  wholeNumberOrNull,
} from './args.js'
import { Interrupt, putBackAtExit } from './ending.js'
import { loadPlugins } from './plugins.js'
import { Output } from './output.js'
import { ReportFile } from './report-file.js'

export const summary = 'move buffers under live transfers and check every byte'

export const usage = `[OPTIONS]

  --engine NAME      software, or vfio: two NICs behind the IOMMU, one of which sends
                     what the other receives; vfio:ADDRESS,ADDRESS names them, else
                     two are taken that are bound to vfio-pci; or verbs: RDMA between
                     two devices; verbs:DEVICE,DEVICE names them, else those are taken
                     that have an active port; one alone is both ends (software)
  --peer HOST[:PORT] with verbs: the other end is there, where \`p2pdma serve\` runs;
                     IPv6 as [2001:db8::1]:PORT or, link-local, [fe80::1%eth0]:PORT
  --port-num N       with verbs: which port of the devices (the first that is active;
                     or in the name, as verbs:mlx5_0/2)
  --gid-index N      with verbs: which entry of the port's GID table (RoCE v2 before
                     v1, routable before link-local, IPv4 before IPv6)
  --memory ADDRESS   with vfio: the device whose BAR is video memory (the memory or
                     display device that is bound to vfio-pci and has the largest)
  --witness          with vfio: only frames to a revoked mapping, and the IOMMU's
                     faults, which the kernel logs
  --from EXPORTER    where the buffers are made (memfd)
  --to EXPORTER,...  where they move, in turn, and back to --from (memfd)
                     exporters: memfd udmabuf heap:NAME drm:DRIVER
                     vfio-bar[:ADDRESS]
  --size BYTES       of each buffer, a multiple of ${LIMITS.size.multipleOf}, ${LIMITS.size.min} at least (4M;
                     with vfio and verbs 512K)
  --buffers N        pairs of a source and a target (2)
  --moves N          end after so many moves (200, and in software 1 GiB verified)
  --seconds S        end after so many seconds, whatever it is at and everything
                     included; with --moves, whichever comes first; 0: no bound
  --max-memory BYTES end when the process, its buffers included, has more (0: no cap)
  --max-gbps N       let the devices move so many Gbit/s at most (0: no cap)
  --profile host     for a host on which others work: 60 s and 256 MiB at most, and
                     nothing disruptive
  --disruptive[=EFFECT,...]  play what touches others too, all of it or this:
${describeEffects()}
  --link NAME        take this interface down, whatever it carries; may be repeated.
                     Others are not where they have an address, a route, a
                     connection, or somebody else's RDMA
  --seed N           repeat the order of blocks and moves
  --json FILE|-      write the report as JSON; '-': to stdout, and TAP to stderr
  --reporter NAME    tap (TAP 14), or ktap, which the kernel's test runners read (tap)
  --plugin MODULE    load this first: it registers engines or exporters for --engine,
                     --from and --to to name (registerEngine(), registerExporter());
                     a package, or a file as ./toy.mjs; may be repeated
  --inject FAULT     break one operation on purpose: ${FAULTS.join(', ')}

BYTES may end in K, M, G or T. Without --disruptive nothing is changed outside of
this process: what would is skipped, and says so. A device that is bound to vfio-pci
is given to whoever opens it: opening and closing it resets it. What was changed is
put back at the end, on every signal, and after a kill -9 by the next run.

Exit codes: 0 all is well, 1 it is not, or the report could not be written, 2 this
usage, 77 it cannot be tested here (no such device, no permission, a kernel without
it), 129 to 143 ended by a signal, 141 nobody reads the output.`

function describeEffects(): string {
  return EFFECT_NAMES.map((name) => {
    const where = EFFECT_SCENARIOS[name].map((each) => `\n${' '.repeat(29)}'${each}'`).join('')
    return `    ${name.padEnd(7)} ${EFFECTS[name]}:${where}`
  }).join('\n')
}

const options = {
  engine: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  size: { type: 'string' },
  buffers: { type: 'string' },
  moves: { type: 'string' },
  memory: { type: 'string' },
  peer: { type: 'string' },
  'port-num': { type: 'string' },
  'gid-index': { type: 'string' },
  witness: { type: 'boolean' },
  seconds: { type: 'string' },
  'max-memory': { type: 'string' },
  'max-gbps': { type: 'string' },
  profile: { type: 'string' },
  disruptive: { type: 'string' },
  link: { type: 'string', multiple: true },
  seed: { type: 'string' },
  json: { type: 'string' },
  reporter: { type: 'string' },
  inject: { type: 'string' },
  plugin: { type: 'string', multiple: true },
  help: { type: 'boolean', short: 'h' },
} as const

export async function run(argv: string[]): Promise<number> {
  // Alone it is all of them; `--disruptive=`, as of an empty variable, is none that there is.
  const words = argv.map((word) => (word === '--disruptive' ? '--disruptive=all' : word))
  const values = parseOptions(words, options)
  if (values.help === true) {
    process.stdout.write(`usage: p2pdma smoke ${usage}\n`)
    return 0
  }
  if (values.json === '') throw new UsageError('--json needs a file, or -')
  const dialect = oneOf('reporter', DIALECTS, values.reporter ?? 'tap')
  await loadPlugins(values.plugin ?? [])
  return usageErrors(async () => smoke(settingsOf(values), values.json ?? null, dialect))
}

type Values = ReturnType<typeof parseOptions<typeof options>>

function settingsOf(values: Values): SmokeOptions {
  const number = (name: 'buffers' | 'moves' | 'seconds' | 'seed') => {
    const text = values[name]
    const { min, max } = LIMITS[name]
    return text === undefined ? {} : { [name]: wholeNumber(name, text, min, max) }
  }
  const { engine, from, to, inject, memory, peer, witness, profile, size, disruptive } = values
  const { 'max-memory': maxMemory, 'max-gbps': maxGbps, link = [] } = values
  const { maxMemory: memoryLimit, maxGbps: rateLimit, size: sizeLimit } = LIMITS
  const links = link.flatMap((names) => names.split(','))
  const settings = withDefaults({
    ...(engine !== undefined && { engine }),
    ...(from !== undefined && { from }),
    ...(to !== undefined && { to: to.split(',') }),
    ...(memory !== undefined && { memory }),
    ...(peer !== undefined && { peer }),
    ...(witness !== undefined && { witness }),
    ...(inject !== undefined && { inject: oneOf('inject', FAULTS, inject) }),
    ...(profile !== undefined && {
      profile: oneOf('profile', Object.keys(PROFILES) as ProfileName[], profile),
    }),
    ...(disruptive !== undefined && { disruptive: parseEffects(disruptive) }),
    ...(size !== undefined && { size: byteCount('size', size, sizeLimit.min, sizeLimit.max) }),
    ...(maxMemory !== undefined && {
      maxMemory: byteCount('max-memory', maxMemory, memoryLimit.min, memoryLimit.max),
    }),
    ...(maxGbps !== undefined && {
      maxGbps: decimal('max-gbps', maxGbps, rateLimit.min, rateLimit.max),
    }),
    links,
    ...number('buffers'),
    ...number('moves'),
    ...number('seconds'),
    ...number('seed'),
    portNum: wholeNumberOrNull('port-num', values['port-num'], LIMITS.portNum),
    gidIndex: wholeNumberOrNull('gid-index', values['gid-index'], LIMITS.gidIndex),
  })
  const { multipleOf } = LIMITS.size
  if (settings.size % multipleOf !== 0) {
    throw new UsageError(`--size must be a multiple of ${multipleOf}, not '${settings.size}'`)
  }
  return settings
}

function oneOf<T extends string>(name: string, all: readonly T[], text: string): T {
  const found = all.find((each) => each === text)
  if (found !== undefined) return found
  throw new UsageError(`--${name} must be one of ${all.join(', ')}, not '${text}'`)
}

/** What the caller has spelt wrong gets the usage, whoever finds it. */
async function usageErrors(work: () => Promise<number>): Promise<number> {
  try {
    return await work()
  } catch (error) {
    const { code, message } = error as P2pdmaError
    if (code !== 'ERR_INVALID_ARG_VALUE' && code !== 'ERR_OUT_OF_RANGE') throw error
    throw new UsageError(message)
  }
}

async function smoke(
  settings: SmokeOptions,
  json: string | null,
  dialect: Dialect,
): Promise<number> {
  // Before the run, so that a path that cannot be written to is known at once.
  const file = json === null || json === '-' ? null : new ReportFile(json)
  const interrupt = new Interrupt()
  const { processJournal } = await import('../kernel/undo/journal.js')
  const { runSmoke } = await import('../smoke/index.js')
  const keep = await putBackAtExit()
  const progress = new Progress(json !== '-')
  const output = new Output('smoke', (code) => interrupt.end(code))
  const stream = json === '-' ? process.stderr : process.stdout
  const tap = new TapWriter((text) => {
    progress.show('')
    output.write(stream, text)
  }, dialect)
  try {
    const { signal } = interrupt
    // The process's own clock: its start counts too.
    const context = { signal, journal: processJournal(), since: 0 }
    const { report, hung } = await runSmoke(settings, { tap, progress: progress.show }, context)
    const text = `${JSON.stringify(report, null, 2)}\n`
    if (json === '-') output.write(process.stdout, text)
    const why = report.error ?? report.untestable
    if (why !== null) {
      output.write(process.stderr, `p2pdma smoke: ${why.replaceAll('; hint: ', '\nhint: ')}\n`)
    }
    await output.flushed()
    const isWritten = await written(file, text)
    const code = interrupt.exitCode ?? (isWritten ? exitCode(report) : 1)
    // What hangs would keep the process alive.
    if (hung) process.exit(code)
    return code
  } finally {
    interrupt.stop()
    keep()
  }
}

/** As automake and meson have it: of a test that cannot be run here. */
const UNTESTABLE = 77

function exitCode({ ok, untestable }: SmokeReport): number {
  if (untestable !== null) return UNTESTABLE
  return ok ? 0 : 1
}

/** False where it could not be, which has been said then. */
async function written(file: ReportFile | null, text: string): Promise<boolean> {
  try {
    await file?.write(text)
    return true
  } catch (error) {
    printError(error)
    return false
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
