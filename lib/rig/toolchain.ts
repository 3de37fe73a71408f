/**
 * What builds modules for a kernel: a small root folder of the kernel's own
 * suite (its headers, the compiler that they insist on, a shell's tools), unpacked
 * and never configured, and some of the kernel's sources. In the cache, by kernel.
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
import { basename, join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { PrivateApt } from './apt.js'
import { cachePath, putIntoCache } from './cache.js'
import { suite, type Kernel } from './kernel.js'
import { runProgram, requireTool } from './tools.js'

/** The root's folders and links, and what Kbuild calls beside the compiler. */
const tools = ['base-files', 'make', 'dash', 'coreutils', 'sed', 'grep', 'findutils', 'mawk']

/** Where modules are built. */
export interface Workshop {
  /** Kbuild's arguments: where the kernel's headers are, and which compiler. */
  readonly make: readonly string[]
  /** The kernel's sources, or those of them that were asked for. */
  readonly source: string
  /** Makes an empty folder for a build. */
  scratch(): string
  /** What `run`'s commands call that folder. */
  inside(folder: string): string
  /** Runs a command; its output goes to the file `log`. Rejects with ERR_RIG_MODULES. */
  run(command: readonly string[], log: string): Promise<void>
}

/**
 * A stock kernel's toolchain with these of its sources (paths below its source tree),
 * fetched where the cache has none; `say` hears what is done.
 */
export async function findToolchain(
  kernel: Kernel,
  sources: readonly string[],
  say: (message: string) => void,
): Promise<Workshop> {
  const { release } = kernel
  const target = cachePath('toolchains', release)
  const root = join(target, 'root')
  const source = join(target, 'source')
  const isThere = existsSync(root) && sources.every((path) => existsSync(join(source, path)))
  if (!isThere) await fetchToolchain(release, target, sources, say)
  const compiler = readdirSync(join(root, 'usr/bin')).find((name) => /^gcc-\d+$/.test(name))
  return {
    make: ['-C', `/usr/src/linux-headers-${release}`, `CC=${compiler ?? 'gcc'}`],
    source,
    scratch: () => mkdtempSync(join(root, 'tmp/modules-')),
    inside: (folder) => `/tmp/${basename(folder)}`,
    run: (command, log) => runInRoot(root, command, log),
  }
}

/** Fetches what `target` lacks. */
async function fetchToolchain(
  release: string,
  target: string,
  sources: readonly string[],
  say: (message: string) => void,
): Promise<void> {
  const suites = `${suite.replace('-backports', '')} ${suite}`
  const apt = await PrivateApt.open(cachePath('apt-toolchain'), suites)
  say(`looking for the headers and sources of ${release}`)
  await apt.update()
  const headers = `linux-headers-${release}`
  const archive = `linux-source-${/^\d+\.\d+/.exec(release)?.[0] ?? ''}`
  const { Version: version, Depends: depends = '' } = await apt.fields(headers)
  const { Version: sourceVersion } = await apt.fields(archive)
  if (version === undefined || sourceVersion !== version) {
    throw new P2pdmaError(`${suites} has no ${headers} with ${archive} of the same version`, {
      code: 'ERR_RIG_MODULES',
      hint: 'exact versions vanish from that suite: p2pdma rig --setup fetches the newest kernel',
    })
  }
  const temporary = mkdtempSync(join(cachePath('toolchains'), '.unpack-'))
  try {
    if (!existsSync(join(target, 'root'))) {
      const compiler = /\bgcc-\d+/.exec(depends)?.[0] ?? 'gcc'
      say(`fetching ${headers} and ${compiler}`)
      await fetchRoot(apt, [headers, compiler, ...tools], temporary)
      putIntoCache(join(temporary, 'root'), join(target, 'root'))
    }
    say(`fetching ${archive}`)
    await fetchSources(apt, archive, sources, temporary)
    const source = join(target, 'source')
    // What it has lacks some of them. It goes with the temporary folder.
    if (existsSync(source)) renameSync(source, join(temporary, 'source.old'))
    putIntoCache(join(temporary, 'source'), source)
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

async function fetchRoot(apt: PrivateApt, names: string[], temporary: string): Promise<void> {
  const packages = join(temporary, 'packages')
  const root = join(temporary, 'root')
  mkdirSync(packages)
  await apt.downloadWithDependencies(names, packages)
  await unpack(packages, root)
  // The package's own script would have made it an alternative.
  if (!existsSync(join(root, 'usr/bin/awk'))) symlinkSync('mawk', join(root, 'usr/bin/awk'))
}

async function fetchSources(
  apt: PrivateApt,
  name: string,
  sources: readonly string[],
  temporary: string,
): Promise<void> {
  const download = join(temporary, 'download')
  const source = join(temporary, 'source')
  mkdirSync(download)
  mkdirSync(source)
  await apt.download([name], download)
  await unpack(download, join(download, 'root'))
  const archive = join(download, 'root/usr/src', `${name}.tar.xz`)
  const paths = sources.map((path) => `${name}/${path}`)
  await runProgram(requireTool('tar'), [
    '-xJf',
    archive,
    '-C',
    source,
    '--strip-components=1',
    ...paths,
  ])
}

/** Every package of a folder. */
async function unpack(folder: string, root: string): Promise<void> {
  const dpkg = requireTool('dpkg')
  mkdirSync(root, { recursive: true })
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.deb'))) {
    await runProgram(dpkg, ['-x', join(folder, name), root])
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

/** Runs a command in the root folder. */
async function runInRoot(root: string, command: readonly string[], log: string): Promise<void> {
  // Root may mount and change the root; anybody else may in a user namespace of his own.
  const privilege = process.getuid?.() === 0 ? [] : ['--map-root-user']
  // Private from / on where that can be: then nothing is left even if it is killed.
  const canBePrivate = isMountPoint('/', readFileSync('/proc/self/mountinfo', 'utf8'))
  const mounts = canBePrivate ? ['--mount'] : ['--mount', '--propagation', 'unchanged']
  const how = [...privilege, ...mounts, 'sh', '-c', enter, 'sh', root]
  await runLogged(requireTool('unshare'), [...how, ...command], log, command[0] ?? '')
}

/** Runs a program whose output goes to the end of the file `log`; `name` is what failed. */
export async function runLogged(
  program: string,
  words: readonly string[],
  log: string,
  name: string,
): Promise<void> {
  const output = openSync(log, 'a')
  try {
    const child = spawn(program, words, { stdio: ['ignore', output, output] })
    const [code] = (await once(child, 'close')) as [number | null]
    if (code === 0) return
  } finally {
    closeSync(output)
  }
  const tail = readFileSync(log, 'utf8').trim().split('\n').slice(-20).join('\n')
  throw new P2pdmaError(`${name} failed where modules are built\n${tail}`, {
    code: 'ERR_RIG_MODULES',
    hint: `its whole output is in ${log}`,
  })
}
