/**
 * What builds modules for a kernel: a small root folder of the kernel's own
 * suite (its headers, the compiler that they insist on, a shell's tools), unpacked
 * and never configured, and soft-RoCE's sources. In the cache, by kernel.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { PrivateApt } from './apt.js'
import { cachePath } from './cache.js'
import { suite, type Kernel } from './kernel.js'
import { call, requireTool } from './tools.js'

/** The root's folders and links, and what Kbuild calls beside the compiler. */
const tools = ['base-files', 'make', 'dash', 'coreutils', 'sed', 'grep', 'findutils', 'mawk']

export interface Toolchain {
  readonly kernel: Kernel
  /** The root folder. */
  readonly root: string
  /** The folder of soft-RoCE's sources. */
  readonly rxe: string
  /** The compiler's name: `gcc-14`. */
  readonly compiler: string
}

/** The kernel's toolchain, fetched where the cache has none; `say` hears what is done. */
export async function findToolchain(
  kernel: Kernel,
  say: (message: string) => void,
): Promise<Toolchain> {
  const folder = cachePath('toolchains')
  const target = join(folder, kernel.release)
  if (!existsSync(target)) {
    const temporary = mkdtempSync(join(folder, '.unpack-'))
    try {
      await fetchToolchain(kernel.release, temporary, say)
      renameSync(join(temporary, 'toolchain'), target)
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  }
  const root = join(target, 'root')
  const compiler = readdirSync(join(root, 'usr/bin')).find((name) => /^gcc-\d+$/.test(name))
  return { kernel, root, rxe: join(target, 'rxe'), compiler: compiler ?? 'gcc' }
}

async function fetchToolchain(
  release: string,
  folder: string,
  say: (message: string) => void,
): Promise<void> {
  const suites = `${suite.replace('-backports', '')} ${suite}`
  const apt = await PrivateApt.open(cachePath('apt-toolchain'), suites)
  say(`looking for the headers and sources of ${release}`)
  await apt.update()
  const headers = `linux-headers-${release}`
  const source = `linux-source-${/^\d+\.\d+/.exec(release)?.[0] ?? ''}`
  const { Version: version, Depends: depends = '' } = await apt.fields(headers)
  const { Version: sources } = await apt.fields(source)
  if (version === undefined || sources !== version) {
    throw new P2pdmaError(`${suites} has no ${headers} with ${source} of the same version`, {
      code: 'ERR_RIG_MODULES',
      hint: 'exact versions vanish from that suite: p2pdma rig --setup fetches the newest kernel',
    })
  }
  const compiler = /\bgcc-\d+/.exec(depends)?.[0] ?? 'gcc'
  say(`fetching ${headers}, ${compiler} and ${source}`)
  const packages = join(folder, 'packages')
  mkdirSync(packages)
  await apt.downloadWithDependencies([headers, compiler, ...tools], packages)
  await apt.download([source], folder)
  say(`unpacking the toolchain of ${release}`)
  const toolchain = join(folder, 'toolchain')
  const root = join(toolchain, 'root')
  await unpack(packages, root)
  // The package's own script would have made it an alternative.
  if (!existsSync(join(root, 'usr/bin/awk'))) symlinkSync('mawk', join(root, 'usr/bin/awk'))
  rmSync(packages, { recursive: true })
  await unpack(folder, join(folder, 'source'))
  const rxe = join(toolchain, 'rxe')
  mkdirSync(rxe)
  const inside = `${source}/drivers/infiniband/sw/rxe`
  const archive = join(folder, 'source/usr/src', `${source}.tar.xz`)
  const strip = `--strip-components=${inside.split('/').length}`
  await call(requireTool('tar'), ['-xJf', archive, '-C', rxe, strip, inside])
}

/** Every package of a folder. */
async function unpack(folder: string, root: string): Promise<void> {
  const dpkg = requireTool('dpkg')
  mkdirSync(root, { recursive: true })
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.deb'))) {
    await call(dpkg, ['-x', join(folder, name), root])
  }
}

/**
 * In the root, with its own mounts: objtool needs /proc. $1 the root, the rest the command.
 * They are below one that is private, so that they are seen nowhere else, and are private
 * themselves before they go with it, or this machine's own would go, too.
 */
const enter = `
  root=$1 && shift &&
  mount --bind "$root" "$root" && mount --make-private "$root" &&
  mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" &&
  mount --make-rprivate "$root" || exit
  chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin LC_ALL=C "$@"
  code=$?
  umount --lazy "$root"
  exit $code`

/** A chroot's root may be none, and then its propagation cannot be changed: unshare(1) fails. */
export function isMountPoint(path: string, mountinfo: string): boolean {
  return mountinfo.split('\n').some((line) => line.split(' ')[4] === path)
}

/** Runs a command in the toolchain's root; its output goes to the file `log`. */
export async function runInToolchain(
  toolchain: Toolchain,
  command: readonly string[],
  log: string,
): Promise<void> {
  // Root may mount and change the root; anybody else may in a user namespace of his own.
  const privilege = process.getuid?.() === 0 ? [] : ['--map-root-user']
  // Private from / on where that can be: then nothing is left even if it is killed.
  const canBePrivate = isMountPoint('/', readFileSync('/proc/self/mountinfo', 'utf8'))
  const mounts = canBePrivate ? ['--mount'] : ['--mount', '--propagation', 'unchanged']
  const output = openSync(log, 'a')
  try {
    const child = spawn(
      requireTool('unshare'),
      [...privilege, ...mounts, 'sh', '-c', enter, 'sh', toolchain.root, ...command],
      { stdio: ['ignore', output, output] },
    )
    const [code] = (await once(child, 'close')) as [number | null]
    if (code === 0) return
  } finally {
    closeSync(output)
  }
  const tail = readFileSync(log, 'utf8').trim().split('\n').slice(-20).join('\n')
  throw new P2pdmaError(`${command[0]} failed in the toolchain's root\n${tail}`, {
    code: 'ERR_RIG_MODULES',
    hint: `its whole output is in ${log}`,
  })
}
