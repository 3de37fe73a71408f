/** Runs one command in a virtual machine that has this machine's files. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { checkInteger, P2pdmaError, rangeError } from '../errors.js'
import { cachePath } from './cache.js'
import { buildInitramfs } from './initramfs.js'
import { findKernel } from './kernel.js'
import { kvmLooksUsable, qemuArguments, type Accelerator, type Machine } from './qemu.js'
import { missingPackages, requireTool, toolsMissing } from './tools.js'

export interface RigOptions {
  /** Virtual CPUs; 2. */
  smp?: number
  /** The guest's memory in QEMU's spelling; `4G`. */
  memory?: string
  /** The cached kernel's version, or its beginning; the newest. */
  kernel?: string
  /** More of QEMU's arguments, as from `deviceArguments`. */
  devices?: readonly string[]
  /** Whether the memory device and the two NICs are there; true. */
  defaultDevices?: boolean
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
  /** Hears how far the boot has come. */
  progress?: (stage: string) => void
}

export interface RigResult {
  /** The command's own; 128 and more for a signal, as a shell has it. */
  exitCode: number
}

/** Milliseconds until the guest's kernel must have said something. */
const helloWithin = { kvm: 30_000, tcg: 300_000 }
/** Milliseconds between the command's end and the machine's. */
const offWithin = 15_000

/**
 * Boots, runs `command` and gives back its exit code. Rejects with a
 * P2pdmaError: ERR_RIG_TOOL_MISSING, ERR_RIG_KERNEL_MISSING, ERR_RIG_QEMU (it
 * refused its arguments, a device for instance), ERR_RIG_PANIC, ERR_RIG_TIMEOUT,
 * ERR_RIG_GUEST (the guest ended otherwise).
 */
export async function runInRig(
  command: readonly string[],
  options: RigOptions = {},
): Promise<RigResult> {
  if (command.length === 0) throw rangeError('command', 'at least one word', '')
  const missing = missingPackages()
  if (missing.length > 0) throw toolsMissing(missing)
  const kernel = findKernel(options.kernel)
  const folder = realpathSync(options.folder ?? process.cwd())
  if (folder === '/')
    throw rangeError('folder', 'a folder below / (the guest writes to it)', folder)
  const timeout = checkInteger('timeout', options.timeout ?? 30 * 60_000, 1, 0x7fffffff)
  const smp = checkInteger('smp', options.smp ?? 2, 1, 255)

  options.signal?.throwIfAborted()
  const environment = options.environment ?? process.env
  const initramfs = await buildInitramfs(kernel, { command, folder, environment })
  const temporary = mkdtempSync(join(tmpdir(), 'p2pdma-rig-'))
  try {
    const file = join(temporary, 'initramfs')
    // It holds the environment: for nobody else's eyes.
    writeFileSync(file, initramfs, { mode: 0o600 })
    const machine: Machine = {
      kernel,
      folder,
      smp,
      initramfs: file,
      log: newLog(),
      memory: options.memory ?? '4G',
      accelerator: 'tcg',
      devices: options.devices ?? [],
      defaultDevices: options.defaultDevices ?? true,
    }
    const deadline = Date.now() + timeout
    options.progress?.(`booting ${kernel.release}`)
    if (kvmLooksUsable()) {
      const result = await new Run({ ...machine, accelerator: 'kvm' }, options, deadline).result()
      if (result !== 'no hello') return result
      options.progress?.('KVM does not work here: emulating')
    }
    const result = await new Run(machine, options, deadline).result()
    if (result !== 'no hello') return result
    throw guestError('ERR_RIG_GUEST', 'the guest did not come up', machine.log)
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

/** One boot. */
class Run {
  readonly #log: string
  readonly #accelerator: Accelerator
  readonly #options: RigOptions
  readonly #child: ChildProcess
  readonly #timers: NodeJS.Timeout[] = []
  #said = ''
  #hello = false
  #exitCode: number | undefined
  /** Why the machine was killed, where it was. */
  #ended: unknown

  constructor(machine: Machine, options: RigOptions, deadline: number) {
    this.#log = machine.log
    this.#accelerator = machine.accelerator
    this.#options = options
    // QEMU goes when this process goes, however it does: setpriv asks the kernel for it.
    const args = [
      '--pdeathsig',
      'KILL',
      requireTool('qemu-system-x86_64'),
      ...qemuArguments(machine),
    ]
    this.#child = spawn(requireTool('setpriv'), args, {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
    })
    this.#after(deadline - Date.now(), () => {
      const message = `the command did not end within ${options.timeout ?? 30 * 60_000} ms`
      this.#end(guestError('ERR_RIG_TIMEOUT', message, this.#log))
    })
    this.#after(helloWithin[this.#accelerator], () => {
      if (!this.#hello) this.#child.kill('SIGKILL')
    })
  }

  async result(): Promise<RigResult | 'no hello'> {
    const { signal } = this.#options
    const abort = () => this.#end(signal?.reason)
    const [, , said, control, stdout, stderr] = this.#child.stdio as Readable[]
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
      for (const timer of this.#timers) clearTimeout(timer)
    }
    return this.#outcome()
  }

  #outcome(): RigResult | 'no hello' {
    if (this.#exitCode !== undefined) return { exitCode: this.#exitCode }
    if (this.#ended !== undefined) throw this.#ended
    const said = this.#said.trim().split('\n').at(-1) ?? ''
    if (this.#child.exitCode !== null && this.#child.exitCode !== 0) {
      // QEMU itself gave up; with KVM for want of KVM, perhaps.
      if (this.#accelerator === 'kvm' && !this.#hello) return 'no hello'
      throw new P2pdmaError(`QEMU failed: ${said.replace(/^.*?qemu-system-x86_64: /, '')}`, {
        code: 'ERR_RIG_QEMU',
        hint: 'the devices that it knows: qemu-system-x86_64 -device help',
      })
    }
    const panic = /Kernel panic - not syncing: (.*)/.exec(readFileSync(this.#log, 'utf8'))?.[1]
    if (panic !== undefined) {
      throw guestError('ERR_RIG_PANIC', `the guest's kernel panicked: ${panic.trim()}`, this.#log)
    }
    if (!this.#hello) return 'no hello'
    throw guestError('ERR_RIG_GUEST', 'the guest ended before the command did', this.#log)
  }

  /** A line of the guest's init, see guest-init.sh. */
  #hear(line: string): void {
    this.#hello = true
    const [word, ...rest] = line.split(' ')
    if (word === 'stage') this.#options.progress?.(rest.join(' '))
    if (word === 'fail') this.#end(guestError('ERR_RIG_GUEST', rest.join(' '), this.#log))
    if (word === 'exit') {
      this.#exitCode = Number(rest[0])
      this.#after(offWithin, () => this.#child.kill('SIGKILL'))
    }
  }

  /** With back-pressure: a slow reader slows the guest down. */
  #forward(from: Readable, to: Writable): void {
    from.on('error', () => {}) // The machine was killed; `close` follows.
    const gone = (error: NodeJS.ErrnoException) => this.#end(error)
    to.on('error', gone)
    from.on('close', () => to.removeListener('error', gone))
    from.pipe(to, { end: false })
  }

  #end(reason: unknown): void {
    this.#ended ??= reason
    this.#child.kill('SIGKILL')
  }

  #after(ms: number, callback: () => void): void {
    this.#timers.push(setTimeout(callback, Math.max(0, ms)))
  }
}

function guestError(code: string, message: string, log: string): P2pdmaError {
  const tail = readFileSync(log, 'utf8').trim().split(/\r?\n/).slice(-20).join('\n')
  return new P2pdmaError(`${message}\n${tail}`, { code, hint: `the boot's log is ${log}` })
}

/** A file for the console; the ten newest are kept. */
function newLog(): string {
  const folder = cachePath('logs')
  for (const old of readdirSync(folder).sort().slice(0, -9))
    rmSync(join(folder, old), { force: true })
  const stamp = new Date().toISOString().replace(/[-:]|\..*/g, '')
  const path = join(folder, `${stamp}-${process.pid}.log`)
  writeFileSync(path, '')
  return path
}
