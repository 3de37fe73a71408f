/** Run by failures.test.ts where something is short or forbidden: prints what came of each call. */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

type Told = Record<'code' | 'syscall' | 'message' | 'hint' | 'name', string | undefined> | string

async function tell(call: () => unknown): Promise<Told> {
  try {
    await call()
    return 'not refused'
  } catch (error) {
    const { code, syscall, message, hint, name } = error as Error & Record<string, string>
    return { code, syscall, message, hint, name }
  }
}

/** Takes every descriptor but `but`. */
function fill(but = 0): number[] {
  const held: number[] = []
  for (;;) {
    try {
      held.push(openSync('/dev/null', 'r'))
    } catch {
      break
    }
  }
  for (let i = 0; i < but; i++) closeSync(held.pop() ?? -1)
  return held
}

const [what = ''] = process.argv.slice(2)
const programs: Record<string, () => Promise<unknown>> = {
  /** Node opens the addon with the last descriptor gone. */
  loading: async () => {
    type Load = (module: object, path: string) => unknown
    const { _extensions } = createRequire(import.meta.url)('node:module') as {
      _extensions: Record<string, Load>
    }
    const load = _extensions['.node'] as Load
    let held: number[] = []
    _extensions['.node'] = (module, path) => {
      held = fill()
      return load(module, path)
    }
    const told = await tell(() => import('../../lib/native.js'))
    held.forEach((fd) => closeSync(fd))
    return told
  },
  descriptors: async () => {
    const P = await import('../../lib/index.js')
    const { nativeVerbs } = await import('../../lib/native-verbs.js')
    const memfd = P.Memfd.create(65536)
    const held = fill()
    const told = {
      create: await tell(() => P.Memfd.create(65536)),
      dup: await tell(() => memfd.dup()),
      log: await tell(() => P.KernelLog.open()),
      udmabuf: await tell(() => P.Udmabuf.create(memfd, 0, 65536)),
      drm: await tell(() => P.DrmDevice.open({ driver: 'vgem' })),
      number: await tell(() => P.Mapping.map(memfd.fd)),
      verbsAddon: await tell(nativeVerbs),
      engine: await tell(() => P.openEngine('verbs:rxe0')),
    }
    for (const fd of held) closeSync(fd)
    // With room again, it is not as though it had failed for ever.
    return { ...told, after: await tell(() => P.Memfd.create(4096).close()) }
  },
  mappings: async () => {
    const { Memfd } = await import('../../lib/kernel/memfd.js')
    const { explain } = await import('../../lib/failures/index.js')
    const most = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'))
    const memfd = Memfd.create(65536)
    const kept = new Array<unknown>(most + 1)
    let made = 0
    // V8 needs mappings, too: what is called there is compiled before.
    await tell(() => Memfd.create(1 << 30, { hugetlb: true }).map())
    explain({ code: 'ENOMEM', syscall: 'mmap' })
    const told = await tell(() => {
      for (; made <= most; made++) kept[made] = memfd.map()
    })
    return { told, most, made }
  },
  hugePages: async () => {
    const { Memfd } = await import('../../lib/kernel/memfd.js')
    const { Machine } = await import('../../lib/failures/index.js')
    const pages = new Machine().hugePages()
    if (pages === null) return null
    // One more than there are.
    using memfd = Memfd.create((pages.free + 1) * pages.size, { hugetlb: pages.size })
    return { pages, told: await tell(() => memfd.map()) }
  },
  filtered: async () => {
    const { Memfd } = await import('../../lib/index.js')
    const made = await tell(() => Memfd.create(65536).close())
    const present = await tell(async () => {
      using memfd = Memfd.create(65536)
      using mapping = memfd.map()
      await mapping.populate()
    })
    return { made, present }
  },
  addressSpace: async () => {
    const { Memfd } = await import('../../lib/index.js')
    // So large that what is left when one fails is enough for V8, which aborts without.
    const memfd = Memfd.create(2 ** 30)
    const kept: object[] = []
    return tell(() => {
      for (let i = 0; i < 10; i++) kept.push(memfd.map())
    })
  },
}
process.stdout.write(JSON.stringify((await programs[what]?.()) ?? null))
