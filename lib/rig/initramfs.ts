/**
 * The guest's first root: static busybox, the modules without which the host's
 * files cannot be reached, and `guest-init.sh`. No disk image.
 */
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { packageRoot } from './cache.js'
import { CpioArchive } from './cpio.js'
import type { Kernel } from './kernel.js'
import type { BuiltModules } from './modules.js'
import { call, requireTool } from './tools.js'

/** Needed to reach the root; the rest is what a stock kernel has of dma-buf exporters. */
const modules = {
  required: ['9pnet_virtio', '9p', 'overlay'],
  wanted: ['udmabuf', 'system_heap', 'vgem'],
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
  /** Modules of ours, one instead of a stock one. */
  modules?: BuiltModules | undefined
}

export async function buildInitramfs(kernel: Kernel, guest: GuestCommand): Promise<Buffer> {
  const archive = new CpioArchive()
  for (const name of ['dev', 'proc', 'sys', 'rig', 'rig/modules', 'rig/bin']) archive.folder(name)
  // The kernel opens it for process 1 before anything is mounted.
  archive.device('dev/console', 5, 1)
  archive.file('rig/busybox', readFileSync(requireTool('busybox')), 0o755)
  archive.file('rig/init', readFileSync(join(packageRoot, 'lib/rig/guest-init.sh')), 0o755)
  archive.file('init', '#!/rig/busybox sh\nexec /rig/busybox sh /rig/init /rig\n', 0o755)
  const { required, wanted, rdma, vfio } = modules
  const optional = [...wanted, ...rdma, ...(guest.vfio.length > 0 ? vfio : [])]
  const files = withOurs(await moduleFiles(kernel, required, optional), guest.modules)
  const contents = await Promise.all(files.map(readModule))
  for (const [i, file] of files.entries()) {
    // In the order in which they are to be loaded.
    const name = `${String(i).padStart(2, '0')}-${basename(file, '.xz')}`
    archive.file(`rig/modules/${name}`, contents[i]!)
  }
  archive.file('rig/settings', settings(kernel, guest))
  archive.file('rig/environment', environment(guest.environment))
  archive.file('rig/command', `exec ${guest.command.map(quote).join(' ')}\n`)
  archive.file('rig/bin/p2pdma', wrapper(), 0o755)
  return archive.finish()
}

/** The files of the modules and of those that they need, each once, in load order. */
async function moduleFiles(
  kernel: Kernel,
  required: readonly string[],
  optional: readonly string[],
): Promise<string[]> {
  const needed = async (name: string): Promise<string[]> => {
    const args = ['--show-depends', '-S', kernel.release, '-d', kernel.root, name]
    let stdout: Buffer
    try {
      stdout = await call(requireTool('modprobe'), args)
    } catch (error) {
      // Some of the built-in ones are not listed as modules.
      if (optional.includes(name)) return []
      throw error
    }
    return [...stdout.toString().matchAll(/^insmod (\S+)/gm)].map(([, file = '']) => file)
  }
  return [...new Set((await Promise.all([...required, ...optional].map(needed))).flat())]
}

function withOurs(files: string[], modules: BuiltModules | undefined): string[] {
  if (modules === undefined) return files
  const stock = files.findIndex((file) => /\/rdma_rxe\.ko/.test(file))
  if (stock < 0) {
    throw new P2pdmaError('the kernel has no soft-RoCE to replace', { code: 'ERR_RIG_MODULES' })
  }
  return [...files.with(stock, modules.rxe), modules.mover, modules.complain]
}

async function readModule(file: string): Promise<Buffer> {
  const content = file.endsWith('.xz')
    ? await call(requireTool('xz'), ['-dc', file])
    : readFileSync(file)
  return withoutSignature(content)
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
