/**
 * A kernel of one's own: a tree in which it is built, or an image with its modules.
 * Nothing is written to either.
 */
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { cachePath, putIntoCache } from './cache.js'
import { findKernel, type Kernel, type OwnKernel } from './kernel.js'
import { runLogged, type Workshop } from './toolchain.js'
import { runProgram, headOf, requireTool } from './tools.js'

/** The cached kernel of a version; or, of a path, one's own. */
export async function chooseKernel(kernel?: string, modules?: string): Promise<Kernel> {
  if (kernel !== undefined && isPath(kernel)) return ownKernel(kernel, modules)
  if (modules === undefined) return findKernel(kernel)
  throw new P2pdmaError('modules go with the image of a kernel of one’s own', {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'kernelModules',
    hint: '--kernel names that image',
  })
}

/** `7.3` and `7.3.4-rc1` are versions, `./7.3`, `bzImage` and `../linux` paths. */
export function isPath(kernel: string): boolean {
  return !/^\d[^/]*$/.test(kernel)
}

/** Whether this folder is one in which Kbuild has configured a kernel. */
function isTree(folder: string): boolean {
  return existsSync(join(folder, 'include/config/kernel.release'))
}

/** Rejects with ERR_RIG_KERNEL_MISSING, ERR_RIG_KERNEL. */
export async function ownKernel(path: string, modules?: string): Promise<Kernel> {
  if (!existsSync(path)) throw missing(`${path} does not exist`, 'a kernel tree, or a bzImage')
  const real = realpathSync(path)
  if (statSync(real).isDirectory()) {
    if (modules === undefined) return checked(await treeKernel(real))
    throw missing(`${path} is a folder, and has its modules`, '--modules goes with a boot image')
  }
  const tree = real.replace(/\/arch\/x86(_64)?\/boot\/bzImage$/, '')
  const inTree = tree !== real && isTree(tree)
  return checked(
    inTree && modules === undefined ? await treeKernel(tree) : imageKernel(real, modules),
  )
}

function missing(message: string, hint: string): P2pdmaError {
  return new P2pdmaError(message, { code: 'ERR_RIG_KERNEL_MISSING', hint })
}

async function treeKernel(tree: string): Promise<Kernel> {
  if (!isTree(tree)) {
    const hint = 'a tree in which `make bzImage modules` has run (its O= folder), or a bzImage'
    throw missing(`${tree} is no kernel tree that was built`, hint)
  }
  const configured = readFileSync(join(tree, 'include/config/kernel.release'), 'utf8').trim()
  const image = join(tree, 'arch/x86/boot/bzImage')
  if (!existsSync(image)) throw missing(`${tree} has no boot image`, 'make bzImage modules')
  const release = releaseOf(image)
  if (release !== configured) {
    const hint = 'make bzImage modules'
    throw missing(`${image} is ${release}, but its tree is ${configured} by now`, hint)
  }
  const config = readFileSync(join(tree, '.config'), 'utf8')
  if (/^CONFIG_\w+=m$/m.test(config) && !existsSync(join(tree, 'modules.order'))) {
    process.stderr.write(`rig: ${tree} has no modules yet (make modules): without them, then\n`)
  }
  const root = await treeModules(tree, release)
  return describe(release, image, root, { build: tree, config })
}

function describe(release: string, image: string, root: string, own: OwnKernel): Kernel {
  return { release, image, root, modules: realpathSync(join(root, 'lib/modules', release)), own }
}

/** The modules of a tree, as `make modules_install` would put them, by links. In the cache. */
async function treeModules(tree: string, release: string): Promise<string> {
  const order = join(tree, 'modules.order')
  const lines = existsSync(order) ? readFileSync(order, 'utf8').split('\n') : []
  // Since Linux 6.2 it has the objects' names.
  const names = lines.filter(Boolean).map((line) => line.replace(/\.k?o$/, '.ko'))
  const absent = names.find((name) => !existsSync(join(tree, name)))
  if (absent !== undefined) throw missing(`${tree} has no ${absent}`, 'make modules')
  const stamp = createHash('sha256').update(release)
  for (const name of names) {
    const { mtimeMs, size } = statSync(join(tree, name))
    stamp.update(`${name} ${mtimeMs} ${size}\n`)
  }
  const all = cachePath('own', short(createHash('sha256').update(tree)))
  const root = join(all, short(stamp))
  if (existsSync(root)) return used(root)
  const temporary = mkdtempSync(join(all, '.new-'))
  const folder = join(temporary, 'lib/modules', release)
  mkdirSync(folder, { recursive: true })
  for (const name of names) {
    mkdirSync(join(folder, 'kernel', dirname(name)), { recursive: true })
    symlinkSync(join(tree, name), join(folder, 'kernel', name))
  }
  writeFileSync(join(folder, 'modules.order'), names.map((name) => `kernel/${name}\n`).join(''))
  for (const name of ['modules.builtin', 'modules.builtin.modinfo']) {
    const path = join(tree, name)
    writeFileSync(join(folder, name), existsSync(path) ? readFileSync(path) : '')
  }
  await runProgram(requireTool('depmod'), ['-b', temporary, release])
  putIntoCache(temporary, root)
  forgetOld(all)
  return used(root)
}

const short = (hash: ReturnType<typeof createHash>) => hash.digest('hex').slice(0, 16)

/** A guest may have it from now on. */
function used(folder: string): string {
  utimesSync(folder, new Date(), new Date())
  return folder
}

/** What no guest has come to use for a day: none has it any more. */
function forgetOld(folder: string): void {
  const old = Date.now() - 24 * 3600_000
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    if (statSync(path).mtimeMs < old) rmSync(path, { recursive: true, force: true })
  }
}

function imageKernel(image: string, given: string | undefined): Kernel {
  const release = releaseOf(image)
  if (given !== undefined && !existsSync(given)) {
    throw missing(`${given} does not exist`, 'the folder lib/modules/RELEASE of that kernel')
  }
  const beside = dirname(image)
  const candidates =
    given !== undefined
      ? [join(given, 'lib/modules', release), join(given, release), given]
      : [
          ...(basename(beside) === release ? [beside] : []),
          ...[beside, dirname(beside), '/'].map((root) => join(root, 'lib/modules', release)),
        ]
  const found = candidates.find((folder) => existsSync(join(folder, 'modules.dep')))
  if (found === undefined) {
    const where = candidates.join(', ')
    throw missing(
      `the modules of ${release} are not found: no modules.dep in ${where}`,
      '--modules FOLDER, where `make modules_install INSTALL_MOD_PATH=FOLDER` has put them',
    )
  }
  const modules = realpathSync(found)
  const all = cachePath('own', short(createHash('sha256').update(modules)))
  const root = join(all, 'image')
  const link = join(root, 'lib/modules', release)
  if (!existsSync(link)) {
    const temporary = mkdtempSync(join(all, '.new-'))
    mkdirSync(join(temporary, 'lib/modules'), { recursive: true })
    symlinkSync(modules, join(temporary, 'lib/modules', release))
    rmSync(root, { recursive: true, force: true })
    putIntoCache(temporary, root)
  }
  const build = join(modules, 'build')
  const configs = [
    join(modules, 'config'),
    join(beside, `config-${release}`),
    join(build, '.config'),
  ]
  const config = configs.find((path) => existsSync(path))
  return describe(release, image, root, {
    build: existsSync(build) ? realpathSync(build) : null,
    config: config === undefined ? null : readFileSync(config, 'utf8'),
  })
}

/**
 * The release of a boot image (Documentation/arch/x86/boot.rst: `HdrS` at 0x202,
 * and at 0x20e where, from 0x200 on, the version's text is).
 */
export function releaseOf(image: string): string {
  const head = headOf(image, 0x10000)
  const isImage = head.toString('latin1', 0x202, 0x206) === 'HdrS'
  const at = head.readUInt16LE(0x20e) + 0x200
  const text = isImage ? /^[^\s\0]+/.exec(head.toString('latin1', at, at + 256))?.[0] : undefined
  if (text !== undefined) return text
  throw missing(`${image} is no boot image of x86`, 'arch/x86/boot/bzImage of a kernel tree')
}

/** What the guest cannot boot without, see guest-init.sh. */
const needs = {
  builtIn: [
    ...['PCI', 'BLK_DEV_INITRD', 'BINFMT_ELF', 'BINFMT_SCRIPT', 'SERIAL_8250_CONSOLE'],
    ...['DEVTMPFS', 'PROC_FS', 'SYSFS', 'TMPFS'],
  ],
  orModule: ['VIRTIO_PCI', 'VIRTIO_CONSOLE', 'NET_9P_VIRTIO', '9P_FS', 'OVERLAY_FS'],
}

/** The options that a configuration lacks. */
export function lacking(config: string): string[] {
  const has = (name: string, values: string) =>
    new RegExp(`^CONFIG_${name}=[${values}]$`, 'm').test(config)
  return [
    ...needs.builtIn.filter((name) => !has(name, 'y')),
    ...needs.orModule.filter((name) => !has(name, has('MODULES', 'y') ? 'ym' : 'y')),
  ].map((name) => `CONFIG_${name}`)
}

function checked(kernel: Kernel): Kernel {
  const { release, own } = kernel
  const options = typeof own?.config === 'string' ? lacking(own.config) : []
  if (options.length === 0) return kernel
  throw new P2pdmaError(`kernel ${release} lacks what the rig boots with: ${options.join(', ')}`, {
    code: 'ERR_RIG_KERNEL',
    hint: 'scripts/config -e for each, make olddefconfig, make; small: test/rig/small.config',
  })
}

/**
 * Where modules for it are built: against its own tree, by this machine's tools, of its
 * own sources. Throws ERR_RIG_MODULES.
 */
export function ownWorkshop(kernel: Kernel, own: OwnKernel, sources: readonly string[]): Workshop {
  const { build } = own
  if (build === null) {
    throw new P2pdmaError(`no modules can be built for ${kernel.release}: its tree is not here`, {
      code: 'ERR_RIG_MODULES',
      hint: `--kernel TREE, or ${join(kernel.modules, 'build')} leads to it`,
    })
  }
  // Built with O=, a tree has its sources elsewhere, and folders of the same names.
  const candidates = [join(build, 'source'), build, join(kernel.modules, 'source')]
  const source = candidates.find((folder) =>
    sources.every((path) => existsSync(join(folder, path))),
  )
  if (source === undefined) {
    throw new P2pdmaError(`${build} does not hold the sources of ${kernel.release}`, {
      code: 'ERR_RIG_MODULES',
      hint: `modules are made of ${sources.join(', ')}: --kernel names the tree that it is built in`,
    })
  }
  return {
    make: ['-C', build, ...compilerOf(own.config ?? '')],
    source,
    scratch: () => mkdtempSync(join(cachePath('build'), 'modules-')),
    inside: (folder) => folder,
    run: ([program = '', ...words], log) => runLogged(program, words, log, program),
  }
}

/** The compiler that the kernel was built with, as make is told of it. */
function compilerOf(config: string): string[] {
  if (/^CONFIG_CC_IS_CLANG=y$/m.test(config)) return ['LLVM=1']
  const name = /^CONFIG_CC_VERSION_TEXT="(\S+)/m.exec(config)?.[1]
  const folders = (process.env['PATH'] ?? '').split(':')
  const isHere = name !== undefined && folders.some((folder) => existsSync(join(folder, name)))
  return isHere ? [`CC=${name}`] : []
}
