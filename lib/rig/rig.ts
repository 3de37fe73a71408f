/** Runs one command in a virtual machine that has this machine's files. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { checkInteger, P2pdmaError, rangeError, typeError } from '../errors.js'
import { Patience } from '../kernel/patience.js'
import { type KernelComplaint, KernelComplaints } from '../kernel/kernel-complaints.js'
import { cachePath } from './cache.js'
import { buildInitramfs } from './initramfs.js'
import type { Kernel } from './kernel.js'
import { newLog } from './logs.js'
import { kernelWithModules, moduleSets, type BuiltModules } from './modules.js'
import { chooseKernel } from './own-kernel.js'
import {
  defaultAddresses,
  kvmLooksUsable,
  ports,
  qemuArguments,
  tcgThreads,
  type Accelerator,
  type GuestMachine,
} from './qemu.js'
import { missingPackages, requireTool, toolsMissing } from './tools.js'

const QEMU = 'qemu-system-x86_64'

export interface RigOptions {
  /** Virtual CPUs; 2. */
  smp?: number
  /** The guest's memory in QEMU's spelling; `4G`. */
  memory?: string
  /**
   * The cached kernel's version, or its beginning; the newest. Or the path of one's own: a
   * tree in which it is built (x86), or its boot image.
   */
  kernel?: string
  /** The folder of the modules of `kernel`, where that is an image; looked for beside it. */
  kernelModules?: string
  /**
   * Whether the guest's clock counts instructions, a nanosecond each, and skips
   * what it idles: times do not depend on this machine's load. One CPU; false.
   */
  icount?: boolean
  /** More of QEMU's arguments, as from `deviceArguments`. */
  devices?: readonly string[]
  /** Whether the memory device and the two NICs are there; true. */
  defaultDevices?: boolean
  /**
   * Soft-RoCE that registers dma-bufs, and the exporter for tests (test/modules),
   * instead of the stock module; false. They are built at the first use.
   */
  rxeDmabuf?: boolean
  /**
   * IOMMUFD, and VFIO with it, instead of the stock modules, where the kernel is without;
   * false. They are built at the first use.
   */
  iommufd?: boolean
  /** For the whole run, milliseconds; 30 minutes. */
  timeout?: number
  /** The folder that the command runs in and writes through to; the current one. */
  folder?: string
  /** The command's environment; this process's. */
  environment?: NodeJS.ProcessEnv
  /** Where the command's output goes; this process's. They are not ended. */
  stdout?: Writable
  stderr?: Writable
  /** Ends the run: the machine is killed and the promise rejects with the signal's reason. */
  signal?: AbortSignal
  /** Complaints of the guest's kernel of which a line matches one of these are not told. */
  allowComplaints?: readonly RegExp[]
  /** Hears how far the boot has come. */
  progress?: (stage: string) => void
}

export interface RigResult {
  /** The command's own; 128 and more for a signal, as a shell has it. */
  exitCode: number
  /** Warnings, leaks, hung tasks: what the guest's kernel complained of, from its boot to its end. */
  complaints: KernelComplaint[]
  /** The file that holds the guest's console. */
  log: string
}

/** Milliseconds until the guest's kernel must have said something. */
const helloWithin = { kvm: 30_000, tcg: 300_000 }
/** Milliseconds between the command's end and the machine's. */
const offWithin = 15_000

/**
 * Boots, runs `command` and gives back its exit code. Rejects with a
 * P2pdmaError: ERR_RIG_TOOL_MISSING, ERR_RIG_KERNEL_MISSING, ERR_RIG_KERNEL (one's own cannot be
 * booted here), ERR_RIG_MODULES, ERR_RIG_QEMU (it refused its arguments, a device for instance), ERR_RIG_PANIC, ERR_RIG_TIMEOUT,
 * ERR_RIG_GUEST (the guest ended otherwise).
 */
export async function runInRig(
  command: readonly string[],
  options: RigOptions = {},
): Promise<RigResult> {
  checkCommand(command)
  const folder = realpathSync(options.folder ?? process.cwd())
  if (folder === '/') {
    throw rangeError('folder', 'a folder below / (the guest writes to it)', folder)
  }
  const timeout = checkInteger('timeout', options.timeout ?? 30 * 60_000, 1, 0x7fffffff)
  const icount = options.icount === true
  const smp = checkInteger('smp', options.smp ?? (icount ? 1 : 2), 1, icount ? 1 : 255)
  const memory = options.memory ?? '4G'
  if (!/^\d+[KMGT]?$/i.test(memory)) throw rangeError('memory', 'a size such as 4G', memory)
  const missing = missingPackages()
  if (missing.length > 0) throw toolsMissing(missing)
  checkPatterns(options.allowComplaints ?? [])
  const { kernel, modules } = await findParts(options)

  options.signal?.throwIfAborted()
  const environment = options.environment ?? process.env
  const vfio = options.defaultDevices === false ? [] : defaultAddresses
  const guest = { command, folder, environment, vfio, modules }
  const initramfs = openUnnamed(await buildInitramfs(kernel, guest))
  try {
    const machine: GuestMachine = {
      kernel,
      folder,
      smp,
      log: newLog(cachePath('logs')),
      memory,
      accelerator: 'tcg',
      icount,
      threads: tcgThreads(execFileSync(requireTool(QEMU), ['--version'], { encoding: 'utf8' })),
      devices: options.devices ?? [],
      defaultDevices: options.defaultDevices ?? true,
      peerToPeer: options.rxeDmabuf === true,
    }
    const run: RunSettings = { options, initramfs, timeout, isLate: false, onLate: () => {} }
    using _patience = new Patience(timeout, () => {
      run.isLate = true
      run.onLate()
    })
    return await boot(machine, run)
  } finally {
    closeSync(initramfs)
  }
}

async function findParts(
  options: RigOptions,
): Promise<{ kernel: Kernel; modules: BuiltModules[] }> {
  const sets = moduleSets(options)
  const kernel = await chooseKernel(options.kernel, options.kernelModules)
  if (sets.length === 0) return { kernel, modules: [] }
  return kernelWithModules(kernel, options.kernel, sets, options.progress ?? (() => {}))
}

function checkCommand(command: readonly unknown[]): void {
  if (!Array.isArray(command)) throw typeError('command', 'a list of words', command)
  if (command.length === 0) throw rangeError('command', 'at least one word', '')
  for (const word of command) {
    if (typeof word !== 'string') throw typeError('command', 'a list of words', word)
    if (word.includes('\0')) throw rangeError('command', 'words without NUL', word)
  }
}

function checkPatterns(patterns: readonly unknown[]): void {
  const areGood = Array.isArray(patterns) && patterns.every((each) => each instanceof RegExp)
  if (!areGood) throw typeError('allowComplaints', 'a list of regular expressions', patterns)
}

/** What the boots of one run have in common. */
interface RunSettings {
  options: RigOptions
  /** The file descriptor of the initial root. */
  initramfs: number
  timeout: number
  /** Whether the time of all boots together is over. */
  isLate: boolean
  /** Called when it is. */
  onLate: () => void
}

/**
 * Until the command runs a boot can be repeated, and has to be: KVM may not
 * work though it looks so; and QEMU before 8.1, emulating several CPUs, may run
 * stale code where the guest's kernel patches itself, which panics it.
 */
async function boot(machine: GuestMachine, run: RunSettings): Promise<RigResult> {
  const { progress } = run.options
  const accelerators: Accelerator[] = ['tcg', 'tcg', 'tcg']
  if (!machine.icount && kvmLooksUsable()) accelerators.unshift('kvm')
  let failure: unknown
  for (const accelerator of accelerators) {
    progress?.(`booting ${machine.kernel.release}${accelerator === 'kvm' ? ' with KVM' : ''}`)
    try {
      return await new Boot({ ...machine, accelerator }, run).result()
    } catch (error) {
      if (!(error instanceof BootError)) throw error
      failure = error.cause
    }
  }
  throw failure
}

/** The command did not get to run, for a reason that may not come again: the cause. */
class BootError extends Error {}

/** A file that has no name, so that nobody sees it (it holds the environment) or has to remove it. */
function openUnnamed(content: Buffer): number {
  const temporary = mkdtempSync(join(tmpdir(), 'p2pdma-rig-'))
  try {
    const path = join(temporary, 'initramfs')
    writeFileSync(path, content, { mode: 0o600 })
    return openSync(path, 'r')
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

/** One boot. */
class Boot {
  readonly #log: string
  readonly #accelerator: Accelerator
  readonly #options: RigOptions
  readonly #child: ChildProcess
  readonly #timers: Patience[] = []
  /** The end of what QEMU itself had to say. */
  #said = ''
  /** The last stage that the guest has reported. */
  #stage = ''
  #exitCode: number | undefined
  /** Why the machine was killed, where it was. */
  #ended: { reason: unknown } | undefined

  constructor(machine: GuestMachine, run: RunSettings) {
    this.#log = machine.log
    this.#accelerator = machine.accelerator
    this.#options = run.options
    // QEMU goes when this process goes, however it does: setpriv asks the kernel for it. A group
    // of its own keeps the terminal's signals away, which are this process's to handle.
    const qemu = [requireTool(QEMU), ...qemuArguments(machine)]
    this.#child = spawn(requireTool('setpriv'), ['--pdeathsig', 'KILL', ...qemu], {
      stdio: ['ignore', 'ignore', 'pipe', run.initramfs, ...ports.map(() => 'pipe' as const)],
      detached: true,
    })
    run.onLate = () => {
      const message = `the command did not end within ${run.timeout} ms`
      // What the boot has printed explains a boot that is stuck, and nothing else.
      const hint = `--timeout, which counts the boot too; the boot's log is ${this.#log}`
      const error =
        this.#stage === 'running'
          ? new P2pdmaError(message, { code: 'ERR_RIG_TIMEOUT', hint })
          : guestError('ERR_RIG_TIMEOUT', message, this.#log)
      this.#end(error)
    }
    if (run.isLate) run.onLate()
    this.#after(helloWithin[this.#accelerator], () => {
      if (this.#stage !== '') return
      const error = guestError('ERR_RIG_GUEST', 'the guest did not come up', this.#log)
      this.#end(new BootError('no hello', { cause: error }))
    })
  }

  async result(): Promise<RigResult> {
    const { signal } = this.#options
    const abort = () => this.#end(signal?.reason)
    const [, , said, , control, stdout, stderr] = this.#child.stdio as Readable[]
    said!.on('data', (data: Buffer) => (this.#said = (this.#said + data.toString()).slice(-8192)))
    createInterface({ input: control! }).on('line', (line) => this.#hear(line))
    this.#forward(stdout!, this.#options.stdout ?? process.stdout)
    this.#forward(stderr!, this.#options.stderr ?? process.stderr)
    signal?.addEventListener('abort', abort)
    if (signal?.aborted === true) abort()
    try {
      await once(this.#child, 'close')
    } finally {
      signal?.removeEventListener('abort', abort)
      for (const timer of this.#timers) timer.end()
    }
    return this.#outcome()
  }

  #outcome(): RigResult {
    if (this.#exitCode !== undefined) {
      const complaints = complaintsOf(this.#log, this.#options.allowComplaints ?? [])
      return { exitCode: this.#exitCode, complaints, log: this.#log }
    }
    if (this.#ended !== undefined) throw this.#ended.reason
    const error = this.#failure()
    // What QEMU refuses it refuses again, unless it was KVM that it could not use.
    const final = error.code === 'ERR_RIG_QEMU' && this.#accelerator === 'tcg'
    throw final || this.#stage === 'running'
      ? error
      : new BootError('boot failed', { cause: error })
  }

  /** Why the machine ended by itself, without the command's exit code. */
  #failure(): P2pdmaError {
    const { exitCode, signalCode } = this.#child
    if (exitCode !== 0) {
      const said = this.#said.trim().split('\n').at(-1) ?? ''
      const why =
        said.replace(/^.*?qemu-system-x86_64: /, '') || signalCode || `exit code ${exitCode}`
      return new P2pdmaError(`QEMU failed: ${why}`, {
        code: 'ERR_RIG_QEMU',
        hint: 'the devices that it knows: qemu-system-x86_64 -device help',
      })
    }
    const log = readFileSync(this.#log, 'utf8')
    const panic = /Kernel panic - not syncing: (.*)/.exec(log)?.[1]
    if (panic !== undefined) {
      const message = `the guest's kernel panicked: ${panic.trim()}`
      return guestError('ERR_RIG_PANIC', message, this.#log)
    }
    return guestError('ERR_RIG_GUEST', 'the guest ended before the command did', this.#log)
  }

  /** A line of the guest's init, see guest-init.sh. */
  #hear(line: string): void {
    const [word, ...rest] = line.split(' ')
    if (word === 'stage') {
      this.#stage = rest.join(' ')
      this.#options.progress?.(this.#stage)
    } else if (word === 'fail') {
      this.#end(guestError('ERR_RIG_GUEST', rest.join(' '), this.#log))
    } else if (word === 'exit') {
      this.#exitCode = Number(rest[0])
      this.#after(offWithin, () => this.#child.kill('SIGKILL'))
    }
  }

  /** With back-pressure: a slow reader slows the guest down. */
  #forward(from: Readable, to: Writable): void {
    from.on('error', () => {}) // The machine was killed; `close` follows.
    const gone = (error: Error) => this.#end(error)
    to.on('error', gone)
    from.on('close', () => to.removeListener('error', gone))
    from.pipe(to, { end: false })
  }

  #end(reason: unknown): void {
    this.#ended ??= { reason }
    this.#child.kill('SIGKILL')
  }

  #after(ms: number, callback: () => void): void {
    this.#timers.push(new Patience(ms, callback))
  }
}

function complaintsOf(log: string, allowed: readonly RegExp[]): KernelComplaint[] {
  // What has no time, and goes no line on, is no record of the kernel's: a program may write there.
  const lines = readFileSync(log, 'utf8')
    .split(/\r?\n/)
    .filter((line) => /^(?:\[ *\d+\.\d+\]| )/.test(line))
  const isAllowed = ({ lines }: KernelComplaint) =>
    allowed.some((pattern) => lines.some((line) => line.search(pattern) !== -1))
  return KernelComplaints.in(lines.join('\n')).filter((each) => !isAllowed(each))
}

function guestError(code: string, message: string, log: string): P2pdmaError {
  const tail = readFileSync(log, 'utf8').trim().split(/\r?\n/).slice(-20).join('\n')
  return new P2pdmaError(`${message}\n${tail}`, { code, hint: `the boot's log is ${log}` })
}
