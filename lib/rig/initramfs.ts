/**
 * The guest's first root: static busybox, the modules without which the host's
 * files cannot be reached, and `guest-init.sh`. No disk image.
 */
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { P2pdmaError } from '../errors.js'
import { packageRoot } from './cache.js'
import { CpioArchive } from './cpio.js'
import { neededModules, type Kernel } from './kernel.js'
import type { BuiltModules } from './modules.js'
import { runProgram, requireTool } from './tools.js'

/** What a stock kernel may have built in, and somebody's own as a module. */
const modules = {
  /** Without which the guest says nothing. */
  early: ['virtio_pci', 'virtio_console', 'virtio_rng'],
  /** Needed to reach the root. */
  root: ['9pnet_virtio', '9p', 'overlay'],
  /** Of dma-buf exporters. */
  exporters: ['udmabuf', 'system_heap', 'vgem'],
  /** Soft-RoCE, the links below it, and what user space reaches it by. */
  rdma: ['rdma_rxe', 'veth', 'ib_uverbs', 'rdma_ucm'],
  /** Where there are devices for it. The container asks for the second one by name, too early. */
  vfio: ['vfio-pci', 'vfio_iommu_type1'],
}

/** What the guest is to run. */
export interface GuestCommand {
  command: readonly string[]
  /** The current folder, absolute and without symbolic links. */
  folder: string
  environment: NodeJS.ProcessEnv
  /** The PCI devices that vfio-pci has from the start. */
  vfio: readonly string[]
  /** Modules that were built for it. */
  modules: readonly BuiltModules[]
}

export async function buildInitramfs(kernel: Kernel, guest: GuestCommand): Promise<Buffer> {
  const archive = new CpioArchive()
  for (const name of ['dev', 'proc', 'sys', 'rig', 'rig/early', 'rig/modules', 'rig/bin'])
    archive.folder(name)
  // The kernel opens it for process 1 before anything is mounted.
  archive.device('dev/console', 5, 1)
  archive.file('rig/busybox', readFileSync(requireTool('busybox')), 0o755)
  archive.file('rig/init', readFileSync(join(packageRoot, 'lib/rig/guest-init.sh')), 0o755)
  archive.file('init', '#!/rig/busybox sh\nexec /rig/busybox sh /rig/init /rig\n', 0o755)
  const files = await moduleFiles(kernel, guest)
  for (const [folder, paths] of Object.entries(files)) {
    const contents = await Promise.all(paths.map((path) => readModule(path, kernel)))
    for (const [i, content] of contents.entries()) {
      // In the order in which they are to be loaded.
      const name = basename(paths[i]!).replace(/\.ko\..*$/, '.ko')
      archive.file(`rig/${folder}/${String(i).padStart(2, '0')}-${name}`, content)
    }
  }
  archive.file('rig/settings', settings(kernel, guest))
  archive.file('rig/environment', environment(guest.environment))
  archive.file('rig/command', `exec ${guest.command.map(quote).join(' ')}\n`)
  archive.file('rig/bin/p2pdma', wrapper(), 0o755)
  return archive.finish()
}

/** The files of the modules and of those that they need, each once, in load order, by folder. */
async function moduleFiles(
  kernel: Kernel,
  { vfio, modules: ours }: GuestCommand,
): Promise<{ early: string[]; modules: string[] }> {
  const needed = async (names: readonly string[]) =>
    (await Promise.all(names.map((name) => neededModules(kernel, name)))).flatMap(
      (each) => each ?? [],
    )
  const root = await Promise.all(modules.root.map((name) => neededModules(kernel, name)))
  // Of somebody's own kernel the list of what is built in may be missing: the boot shows it.
  const missing = kernel.own === undefined ? modules.root.filter((_, i) => root[i] === null) : []
  if (missing.length > 0) {
    throw new P2pdmaError(`kernel ${kernel.release} has no module ${missing.join(', ')}`, {
      code: 'ERR_RIG_KERNEL',
    })
  }
  const rdma = await Promise.all(modules.rdma.map((name) => neededModules(kernel, name)))
  const early = await needed(modules.early)
  const files = [
    ...root.flatMap((each) => each ?? []),
    ...(await needed(modules.exporters)),
    // A part of them would be a link without RDMA.
    ...(rdma.includes(null) ? [] : rdma.flatMap((each) => each ?? [])),
    ...(vfio.length > 0 ? await needed(modules.vfio) : []),
  ].filter((file) => !early.includes(file))
  const built = ours.flatMap((each) => each.files)
  const replaced = new Set(built.map(moduleName))
  const stock = [...new Set(files)].filter((file) => !replaced.has(moduleName(file)))
  return { early: [...new Set(early)], modules: [...stock, ...built] }
}

/** As the kernel calls it: `vfio_pci` for .../vfio-pci.ko.xz. */
function moduleName(file: string): string {
  return basename(file)
    .replace(/\.ko\b.*$/, '')
    .replaceAll('-', '_')
}

async function readModule(file: string, kernel: Kernel): Promise<Buffer> {
  const content = await unpacked(file)
  // What apt has checked; of somebody's own kernel it is the kernel that may insist on it.
  return kernel.own === undefined ? withoutSignature(content) : content
}

async function unpacked(file: string): Promise<Buffer> {
  if (file.endsWith('.xz')) return runProgram(requireTool('xz'), ['-dc', file])
  if (file.endsWith('.gz')) return gunzipSync(readFileSync(file))
  if (file.endsWith('.zst')) return runProgram('zstd', ['-dcq', file])
  return readFileSync(file)
}

const signed = Buffer.from('~Module signature appended~\n')

/**
 * A module without the signature at its end: to check it takes the emulated
 * kernel as long as all else of the load, and apt has checked the package. What
 * is before the marker: include/linux/module_signature.h, whose last member is
 * the signature's length.
 */
export function withoutSignature(content: Buffer): Buffer {
  const marker = content.length - signed.length
  const header = marker - 12
  if (header < 0 || !content.subarray(marker).equals(signed)) return content
  const end = header - content.readUInt32BE(header + 8)
  return end > 0 ? content.subarray(0, end) : content
}

function settings(kernel: Kernel, guest: GuestCommand): string {
  return Object.entries({
    RELEASE: kernel.release,
    FOLDER: guest.folder,
    VFIO: guest.vfio.join(' '),
    IP: requireTool('ip'),
    RDMA: requireTool('rdma'),
    MODPROBE: requireTool('modprobe'),
  })
    .map(([name, value]) => `${name}=${quote(value)}\n`)
    .join('')
}

/**
 * What belongs to the host's session and means nothing in the guest. Certificates
 * are for a network, which it has not, and Node parses them all when it starts:
 * emulated, 5.3 s instead of 0.8.
 */
const left =
  /^(_|TERM|DISPLAY|WAYLAND_DISPLAY|XDG_\w+|DBUS_\w+|SSH_\w+|PWD|OLDPWD|SHLVL|NODE_EXTRA_CA_CERTS)$/

function environment(variables: NodeJS.ProcessEnv): string {
  const path = variables['PATH'] ?? ''
  const all = {
    HOME: '/root',
    ...variables,
    PATH: `/run/p2pdma/bin:${path}:/usr/sbin:/usr/bin:/sbin:/bin`,
    P2PDMA_RIG: '1',
  }
  return Object.entries(all)
    .filter(
      ([name, value]) => value !== undefined && !left.test(name) && /^[A-Za-z_]\w*$/.test(name),
    )
    .map(([name, value]) => `export ${name}=${quote(value ?? '')}\n`)
    .join('')
}

function wrapper(): string {
  const main = join(packageRoot, 'dist/lib/cli/main.js')
  return `#!/bin/sh\nexec ${quote(process.execPath)} ${quote(main)} "$@"\n`
}

/** One word of the shell. */
function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
