/** The programs that the rig calls, and the Debian packages that bring them. */
import { execFile } from 'node:child_process'
import { accessSync, closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { P2pdmaError } from '../errors.js'

const packageOf = {
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  modprobe: 'kmod',
  depmod: 'kmod',
  xz: 'xz-utils',
  setpriv: 'util-linux',
  unshare: 'util-linux',
  tar: 'tar',
  ip: 'iproute2',
  rdma: 'iproute2',
} as const

export type Tool = keyof typeof packageOf

/** The path of a program, or null. An unprivileged PATH lacks the sbin folders: they are added. */
export function findTool(tool: Tool | 'apt-get' | 'dpkg'): string | null {
  const folders = (process.env['PATH'] ?? '').split(':')
  for (const folder of [...folders, '/usr/sbin', '/sbin', '/usr/bin', '/bin']) {
    if (folder === '') continue
    const path = join(folder, tool)
    try {
      accessSync(path, constants.X_OK)
      if (tool !== 'busybox' || isStatic(path)) return path
    } catch {
      // Not in this folder.
    }
  }
  return null
}

/** The packages that are missing, sorted; empty when the rig has all it calls. */
export function missingPackages(): string[] {
  const tools = Object.keys(packageOf) as Tool[]
  const missing = tools.filter((tool) => findTool(tool) === null)
  return [...new Set(missing.map((tool) => packageOf[tool]))].sort()
}

/** The path of a program; a typed error says what to install where it is missing. */
export function requireTool(tool: Tool | 'apt-get' | 'dpkg'): string {
  const path = findTool(tool)
  if (path !== null) return path
  if (tool === 'apt-get' || tool === 'dpkg') {
    throw new P2pdmaError(`${tool} not found: the rig gets its kernel from a Debian archive`, {
      code: 'ERR_RIG_TOOL_MISSING',
    })
  }
  throw toolsMissing(missingPackages())
}

export function toolsMissing(packages: string[]): P2pdmaError {
  return new P2pdmaError(`the rig needs packages that are not installed: ${packages.join(' ')}`, {
    code: 'ERR_RIG_TOOL_MISSING',
    hint: `sudo apt-get install --no-install-recommends ${packages.join(' ')}`,
  })
}

export interface ProgramOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
}

/** Runs a program to its end and gives back its stdout; a failure carries its stderr. */
export function runProgram(
  path: string,
  args: string[],
  options: ProgramOptions = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    execFile(
      path,
      args,
      { ...options, encoding: 'buffer', maxBuffer: 1 << 30 },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout)
        const said = stderr.toString().trim()
        reject(
          new P2pdmaError(`${path} ${args.join(' ')} failed: ${said || error.message}`, {
            code: 'ERR_RIG_COMMAND_FAILED',
            cause: error,
          }),
        )
      },
    )
  })
}

/** The first `bytes` of a file, zeros beyond its end. */
export function headOf(path: string, bytes: number): Buffer {
  const head = Buffer.alloc(bytes)
  const fd = openSync(path, 'r')
  try {
    readSync(fd, head, 0, bytes, 0)
  } finally {
    closeSync(fd)
  }
  return head
}

/** Whether an ELF64 file names no program interpreter (elf(5): no PT_INTERP header). */
function isStatic(path: string): boolean {
  const head = headOf(path, 4096)
  if (head.readUInt32BE(0) !== 0x7f454c46) return false
  const table = Number(head.readBigUInt64LE(32))
  const entrySize = head.readUInt16LE(54)
  const entries = head.readUInt16LE(56)
  for (let i = 0; i < entries; i++) {
    const at = table + i * entrySize
    if (at + 4 > head.length) return false
    if (head.readUInt32LE(at) === 3) return false
  }
  return true
}
