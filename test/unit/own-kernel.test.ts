/** `rig --kernel PATH`: what is taken for a kernel, and what is said of one that cannot be booted. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { chooseKernel, isPath, lacking, ownWorkshop, releaseOf } from '../../lib/rig/own-kernel.js'

const folder = mkdtempSync(join(tmpdir(), 'p2pdma-test-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
process.env['XDG_CACHE_HOME'] = join(folder, 'cache')

const small = readFileSync(
  fileURLToPath(new URL('../../../test/rig/small.config', import.meta.url)),
  'utf8',
)
const RELEASE = '7.3.4-mine'

function put(path: string, content: string | Buffer): string {
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, content)
  return path
}

/** The head of a boot image, as far as the rig reads it. */
function image(release: string): Buffer {
  const bytes = Buffer.alloc(0x4000)
  bytes.write('HdrS', 0x202, 'latin1')
  bytes.writeUInt16LE(0x3000, 0x20e)
  bytes.write(`${release} (me@here) #1 SMP\0`, 0x3200, 'latin1')
  return bytes
}

function tree(name: string, { config = small, release = RELEASE } = {}): string {
  const path = join(folder, name)
  put(join(path, 'include/config/kernel.release'), `${release}\n`)
  put(join(path, '.config'), `${config}\nCONFIG_CC_IS_CLANG=y\n`)
  put(join(path, 'modules.builtin'), 'kernel/fs/9p/9p.ko\n')
  put(join(path, 'arch/x86/boot/bzImage'), image(RELEASE))
  return path
}

void t.test('versions and paths', async (t) => {
  const words = ['7.3', '7.3.4+deb13-amd64', './7.3', '/boot/vmlinuz', 'bzImage', '../7.3/linux']
  t.strictSame(words.map(isPath), [false, false, true, true, true, true])
})

void t.test(
  'the small configuration is one that boots; each option that is missing is named',
  async (t) => {
    t.strictSame(lacking(small), [])
    t.strictSame(lacking(small.replace('CONFIG_9P_FS=y', '# CONFIG_9P_FS is not set')), [
      'CONFIG_9P_FS',
    ])
    t.strictSame(lacking(small.replace('CONFIG_9P_FS=y', 'CONFIG_9P_FS=m')), [])
    const builtIn = small.replace('CONFIG_PCI=y', 'CONFIG_PCI=m').replace('CONFIG_MODULES=y', '')
    t.strictSame(lacking(builtIn.replace('CONFIG_9P_FS=y', 'CONFIG_9P_FS=m')), [
      'CONFIG_PCI',
      'CONFIG_9P_FS',
    ])
  },
)

void t.test('a tree', async (t) => {
  const path = tree('tree')
  for (const named of [path, join(path, 'arch/x86/boot/bzImage')]) {
    const kernel = await chooseKernel(named)
    t.match(kernel, { release: RELEASE, image: join(path, 'arch/x86/boot/bzImage') })
    t.equal(kernel.own?.build, path)
    t.match(readFileSync(join(kernel.modules, 'modules.builtin'), 'utf8'), /9p\.ko/)
    t.notOk(kernel.modules.startsWith(path), 'nothing is written to the tree')
  }
  put(join(path, 'modules.order'), 'drivers/vfio/vfio.o\n')
  await t.rejects(chooseKernel(path), { code: 'ERR_RIG_KERNEL_MISSING', hint: 'make modules' })
})

void t.test('a tree that cannot be used', async (t) => {
  const absent = chooseKernel(join(folder, 'absent'))
  await t.rejects(absent, { code: 'ERR_RIG_KERNEL_MISSING', message: /does not exist/ })
  await t.rejects(chooseKernel(folder), { message: /no kernel tree/, hint: /make bzImage modules/ })
  const newer = tree('newer', { release: '7.3.5' })
  await t.rejects(chooseKernel(newer), { message: /is 7\.3\.4-mine, but its tree is 7\.3\.5/ })
  const poor = tree('poor', { config: small.replace('CONFIG_VIRTIO_CONSOLE=y', '') })
  await t.rejects(chooseKernel(poor), {
    code: 'ERR_RIG_KERNEL',
    message: /lacks what the rig boots with: CONFIG_VIRTIO_CONSOLE$/,
  })
  const text = put(join(folder, 'text'), 'no kernel')
  t.throws(() => releaseOf(text), { code: 'ERR_RIG_KERNEL_MISSING', message: /no boot image/ })
  await t.rejects(chooseKernel('7.3', folder), {
    code: 'ERR_INVALID_ARG_VALUE',
    argument: 'kernelModules',
  })
})

void t.test('an image, and where its modules are', async (t) => {
  const bzImage = put(join(folder, 'install/boot/vmlinuz'), image(RELEASE))
  const absent = { code: 'ERR_RIG_KERNEL_MISSING', hint: /--modules FOLDER/ }
  await t.rejects(chooseKernel(bzImage), absent)
  const modules = join(folder, 'install/lib/modules', RELEASE)
  put(join(modules, 'modules.dep'), '')
  const given = [undefined, join(folder, 'install'), join(folder, 'install/lib/modules'), modules]
  for (const each of given) {
    const kernel = await chooseKernel(bzImage, each)
    t.match(kernel, { release: RELEASE, image: bzImage, modules }, each ?? 'beside it')
  }
  await t.rejects(chooseKernel(bzImage, join(folder, 'absent')), { code: absent.code })
  t.throws(() => workshop(null), { code: 'ERR_RIG_MODULES', hint: /--kernel TREE/ })

  function workshop(build: string | null, sources: string[] = []) {
    const kernel = { release: RELEASE, image: bzImage, root: '/', modules }
    return ownWorkshop(kernel, { build, config: 'CONFIG_CC_IS_CLANG=y\n' }, sources)
  }
  // Of a tree that is built with O= the sources are elsewhere.
  const source = put(join(folder, 'source/lib/a.c'), '')
  const build = tree('build')
  t.throws(() => workshop(build, ['lib/a.c']), { code: 'ERR_RIG_MODULES', message: /sources/ })
  symlinkSync(join(source, '../..'), join(build, 'source'))
  put(join(build, 'lib/a.c'), 'what a build has left is not the source')
  t.match(workshop(build, ['lib/a.c']), {
    make: ['-C', build, 'LLVM=1'],
    source: join(build, 'source'),
  })
})
