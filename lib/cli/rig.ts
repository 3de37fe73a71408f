/** `p2pdma rig`: run a command in a virtual machine that has this machine's files. */
import { constants } from 'node:os'
import { P2pdmaError } from '../errors.js'
import {
  deviceArguments,
  isPath,
  moduleSets,
  runInRig,
  setUpRig,
  type RigOptions,
  type RigResult,
} from '../rig/index.js'
import { parseOptions, printError, splitCommand, UsageError, wholeNumber } from './args.js'

export const summary = 'run a command under a stock Linux 7.x kernel in a virtual machine'

export const usage = `[OPTIONS] [--] COMMAND...
       p2pdma rig --setup [--kernel VERSION|PATH] [--rxe-dmabuf] [--iommufd]

  --smp N               virtual CPUs (2)
  --memory M            memory, as QEMU spells it (4G)
  --icount              the guest's clock counts its instructions, so that times do
                        not depend on this machine's load; with one CPU, and slower
  --kernel VERSION      a version in the cache, or its beginning (the newest)
  --kernel PATH         one's own: a tree in which it is built, or its bzImage
  --modules FOLDER      of that bzImage, where make modules_install has put them
                        (looked for beside it, and in /lib/modules)
  --device ARGS         one more device, as after QEMU's -device; or, beginning
                        with '-', any of QEMU's arguments. May be repeated
  --no-default-devices  without the memory device and the two NICs
  --rxe-dmabuf          soft-RoCE that registers dma-bufs, and an exporter whose
                        buffers move, built from the kernel's sources (first use)
  --iommufd             VFIO with IOMMUFD where the kernel is without, built from
                        its sources (first use); type1 stays, too
  --allow-complaint RE  a warning, or another complaint of the guest's kernel, of
                        which a line matches is none. May be repeated
  --timeout S           seconds for the whole run, the boot included (1800)
  --setup               fetch what the rig needs

COMMAND runs in the current folder, and what it writes there comes back; its stdin
is empty. Exit codes: the command's own; 123 it ended with 0 but the guest's kernel
complained; 124 the timeout, 125 the rig failed.`

/** Of a command that ended well, under a kernel that did not think so. */
const COMPLAINED = 123

const options = {
  smp: { type: 'string' },
  memory: { type: 'string' },
  icount: { type: 'boolean' },
  kernel: { type: 'string' },
  device: { type: 'string', multiple: true },
  'no-default-devices': { type: 'boolean' },
  modules: { type: 'string' },
  'rxe-dmabuf': { type: 'boolean' },
  iommufd: { type: 'boolean' },
  'allow-complaint': { type: 'string', multiple: true },
  timeout: { type: 'string' },
  setup: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const

export async function run(argv: string[]): Promise<number> {
  const { own, command } = splitCommand(argv, options)
  const values = parseOptions(own, options)
  if (values.help === true) {
    process.stdout.write(`usage: p2pdma rig ${usage}\n`)
    return 0
  }
  const { memory, kernel, modules, device } = values
  if (modules !== undefined && (kernel === undefined || !isPath(kernel))) {
    throw new UsageError('--modules goes with --kernel, and that is the path of an image')
  }
  const asked = { rxeDmabuf: values['rxe-dmabuf'] === true, iommufd: values.iommufd === true }
  if (values.setup === true) {
    if (command.length > 0) throw new UsageError('--setup takes no command')
    return failing(async () => {
      const say = (message: string) => process.stderr.write(`rig: ${message}\n`)
      await setUpRig(kernel, moduleSets(asked), say, modules)
      return 0
    })
  }
  if (command.length === 0) throw new UsageError('a command is missing')
  if (memory !== undefined && !/^\d+[KMGT]?$/i.test(memory)) {
    throw new UsageError(`--memory must be a size such as 4G, not '${memory}'`)
  }
  const settings: RigOptions = {
    defaultDevices: values['no-default-devices'] !== true,
    ...asked,
    icount: values.icount === true,
    devices: (device ?? []).flatMap(deviceArguments),
    allowComplaints: (values['allow-complaint'] ?? []).map(pattern),
    ...(memory !== undefined && { memory }),
    ...(kernel !== undefined && { kernel }),
    ...(modules !== undefined && { kernelModules: modules }),
    ...(values.smp !== undefined && {
      smp: wholeNumber('smp', values.smp, 1, values.icount === true ? 1 : 255),
    }),
    ...(values.timeout !== undefined && {
      timeout: wholeNumber('timeout', values.timeout, 1, 1_000_000) * 1000,
    }),
  }
  return failing(() => boot(command, settings))
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (error) {
    throw new UsageError(`--allow-complaint: ${(error as Error).message}`)
  }
}

async function boot(command: string[], settings: RigOptions): Promise<number> {
  const abort = new AbortController()
  const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map((name) => {
    const handler = () => abort.abort(128 + constants.signals[name])
    process.once(name, handler)
    return () => process.removeListener(name, handler)
  })
  const progress = new Progress()
  try {
    const { signal } = abort
    const result = await runInRig(command, { ...settings, signal, progress: progress.say })
    return result.complaints.length === 0 ? result.exitCode : complained(result)
  } catch (error) {
    if (typeof error === 'number') return error // A signal's exit code, from above.
    // Whoever read our output has gone: end as a signal would have ended us.
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') return 128 + constants.signals.SIGPIPE
    throw error
  } finally {
    progress.stop()
    for (const remove of handlers) remove()
  }
}

function complained({ exitCode, complaints, log }: RigResult): number {
  for (const { summary, lines } of complaints) {
    const more = lines.map((line) => `    ${line}\n`).join('')
    process.stderr.write(`rig: the guest's kernel complains: ${summary}\n${more}`)
  }
  process.stderr.write(`hint: its log is ${log}; --allow-complaint names what is expected\n`)
  return exitCode === 0 ? COMPLAINED : exitCode
}

/** The rig's own failures have exit codes of their own, beside the command's. */
async function failing(work: () => Promise<number>): Promise<number> {
  try {
    return await work()
  } catch (error) {
    printError(error)
    return error instanceof P2pdmaError && error.code === 'ERR_RIG_TIMEOUT' ? 124 : 125
  }
}

/** One line on a terminal, gone when the command runs; nothing elsewhere. */
class Progress {
  readonly #started = Date.now()
  readonly #timer: NodeJS.Timeout | undefined
  #stage = 'preparing'

  constructor() {
    if (process.stderr.isTTY) this.#timer = setInterval(() => this.#draw(), 1000)
  }

  readonly say = (stage: string): void => {
    if (stage === 'running') this.stop()
    this.#stage = stage === 'kernel' ? this.#stage : stage
    if (this.#timer !== undefined) this.#draw()
  }

  stop(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    process.stderr.write('\r\x1b[K')
  }

  #draw(): void {
    const seconds = Math.round((Date.now() - this.#started) / 1000)
    process.stderr.write(`\r\x1b[K${this.#stage} ... ${seconds} s`)
  }
}
