/** A made-up machine's sysfs and proc in a folder, and a kernel that binds drivers in it. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { PciSystem } from '../../lib/kernel/pci/system.js'

export interface FakeDevice {
  class?: number
  driver?: string | null
  group?: string | null
  files?: Record<string, string>
}

export class FakePci extends PciSystem {
  readonly root: string
  /** What `modprobe` was called with. */
  readonly loaded: string[] = []
  /** What was written, in order. */
  readonly writes: string[] = []
  /** Drivers that the kernel would choose for a device. */
  readonly preferred = new Map<string, string>()
  /** Set by a test: what loading a module does. */
  onLoad: (name: string) => void = (name) => {
    if (name === 'vfio-pci') this.folder('/sys/bus/pci/drivers/vfio-pci')
  }
  /** Set by a test: vfio-pci refuses, all devices or this one. */
  refuses: boolean | string = false

  constructor() {
    const root = mkdtempSync(join(tmpdir(), 'p2pdma-fake-pci-'))
    super(root)
    this.root = root
    for (const path of ['/sys/bus/pci/devices', '/sys/bus/pci/drivers', '/proc/self']) {
      this.folder(path)
    }
    this.file('/proc/self/mountinfo', '28 1 0:9 / / rw - overlay overlay rw\n')
    this.file('/proc/swaps', 'Filename Type Size Used Priority\n')
  }

  folder(path: string): void {
    mkdirSync(join(this.root, path), { recursive: true })
  }

  file(path: string, text: string): void {
    this.folder(dirname(path))
    writeFileSync(join(this.root, path), text)
  }

  /** The target is a path of the fake machine. */
  symlink(path: string, target: string): void {
    this.folder(dirname(path))
    rmSync(join(this.root, path), { force: true })
    symlinkSync(target.startsWith('/sys') ? join(this.root, target) : target, join(this.root, path))
  }

  add(address: string, device: FakeDevice = {}): void {
    const home = `/sys/devices/pci0000:00/${address}`
    this.folder(home)
    this.symlink(`/sys/bus/pci/devices/${address}`, home)
    const code = (device.class ?? 0x020000).toString(16).padStart(6, '0')
    const files = {
      vendor: '0x8086',
      device: '0x10d3',
      class: `0x${code}`,
      driver_override: '(null)',
    }
    for (const [name, text] of Object.entries({ ...files, ...device.files })) {
      this.file(`${home}/${name}`, `${text}\n`)
    }
    if (device.driver != null) {
      this.preferred.set(address, device.driver)
      this.#take(address, device.driver)
    }
    const group = device.group === undefined ? address.slice(5, 7) : device.group
    if (group === null) return
    this.symlink(`/sys/kernel/iommu_groups/${group}/devices/${address}`, home)
    this.symlink(`${home}/iommu_group`, `/sys/kernel/iommu_groups/${group}`)
  }

  /** A network interface of a device. */
  net(address: string, name: string, flags: number): void {
    const home = `/sys/devices/pci0000:00/${address}/net/${name}`
    this.file(`${home}/flags`, `0x${flags.toString(16)}\n`)
    this.symlink(`/sys/class/net/${name}`, home)
  }

  /** A block device below a device; `path` is its place there, as `nvme/nvme0/nvme0n1`. */
  block(address: string, path: string, number: string, holders: string[] = []): void {
    const home = `/sys/devices/pci0000:00/${address}/${path}`
    const name = basename(path)
    this.file(`${home}/dev`, `${number}\n`)
    for (const holder of holders) this.folder(`${home}/holders/${holder}`)
    this.symlink(`/sys/class/block/${name}`, home)
  }

  #take(address: string, driver: string): void {
    this.folder(`/sys/bus/pci/drivers/${driver}`)
    this.symlink(`/sys/devices/pci0000:00/${address}/driver`, `/sys/bus/pci/drivers/${driver}`)
  }

  override write(path: string, text: string): Promise<void> {
    try {
      this.writeSync(path, text)
      return Promise.resolve()
    } catch (error) {
      return Promise.reject(error)
    }
  }

  override writeSync(path: string, text: string): void {
    this.writes.push(`${path.replace('/sys/bus/pci/', '')} ${JSON.stringify(text)}`)
    const home = join(this.root, '/sys/devices/pci0000:00')
    if (path.endsWith('/driver_override')) {
      writeFileSync(join(this.root, path), text.trim() === '' ? '(null)\n' : text)
    } else if (path.endsWith('/unbind')) {
      rmSync(join(home, text, 'driver'))
    } else if (path.endsWith('/drivers_probe')) {
      const override = readFileSync(join(home, text, 'driver_override'), 'utf8').trim()
      const driver = override === '(null)' ? this.preferred.get(text) : override
      const isRefused = this.refuses === true || this.refuses === text
      if (driver === 'vfio-pci' && isRefused) throw new Error('fake: refused')
      if (driver !== undefined) this.#take(text, driver)
    } else if (path.endsWith('/bind')) {
      this.#take(text, basename(dirname(path)))
    } else {
      writeFileSync(join(this.root, path), text)
    }
  }

  override loadModule(name: string): Promise<void> {
    this.loaded.push(name)
    try {
      this.onLoad(name)
      return Promise.resolve()
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true })
  }
}
