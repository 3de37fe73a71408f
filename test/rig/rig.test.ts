/** What `p2pdma rig` promises of any command: its output, exit code and files; and how it fails. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { rootCertificates } from 'node:tls'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { findKernel } from '../../lib/rig/index.js'

const main = join(dirname(fileURLToPath(import.meta.url)), '../../lib/cli/main.js')
const folder = realpathSync(mkdtempSync(join(tmpdir(), 'p2pdma rig, test-')))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
t.setTimeout(900_000)

interface Outcome {
  code: number | null
  stdout: string
  stderr: string
}

function start(args: string[], environment: NodeJS.ProcessEnv = process.env) {
  const child = spawn(process.execPath, [main, 'rig', ...args], {
    cwd: folder,
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const outcome: Outcome = { code: null, stdout: '', stderr: '' }
  child.stdout.on('data', (data: Buffer) => (outcome.stdout += data.toString()))
  child.stderr.on('data', (data: Buffer) => (outcome.stderr += data.toString()))
  const ended = once(child, 'close').then(() => ({ ...outcome, code: child.exitCode }))
  return { child, outcome, ended }
}

const rig = (...args: string[]) => start(args).ended

/** The QEMU processes whose parent is (or was) `parent`. */
function machinesOf(pids: readonly number[]): number[] {
  return pids.filter((pid) => existsSync(`/proc/${pid}`))
}

/** Machines that this process has started. */
function machinesUnder(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const [name, rest] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')
        return Number(rest?.split(' ')[1]) === parent && name?.includes('(qemu-system')
      } catch {
        return false // It has ended in the meantime.
      }
    })
}

t.test('stdout, stderr, exit code, arguments and files; soft-RoCE, programs', async (t) => {
  // RDMA between two network namespaces; the command's own programs.
  const script = `
    (
      cd /sys/class/infiniband
      for device in rxe0 rxe1; do
        cat $device/ports/1/state $device/ports/1/gid_attrs/ndevs/1 $device/ports/1/gids/1
      done
      ls /dev/infiniband
      ulimit -l
      [ "$(readlink /proc/$$/exe)" = "$(readlink -f /bin/sh)" ] && echo "the root's shell"
      ip netns exec peer ip -brief address show dev p2p1 up | grep -o '10.0.0.2/24'
    ) >rdma
    uname -r
    echo "to stderr" >&2
    printf '%s|' "$@"
    echo
    pwd
    test -t 1 || echo no terminal
    echo "$P2PDMA_TEST_VARIABLE"
    echo "$NODE_EXTRA_CA_CERTS"
    mkdir made && seq 1 50000 >made/file && chmod 750 made/file
    ls /dev/udmabuf /dev/dma_heap/system /dev/dri/card0 >&2
    for slot in 10 11 12; do readlink "/sys/bus/pci/devices/0000:00:$slot.0/driver" >&2; done
    exit 7`
  // Of one's own: a machine need have none, and Node would say so here.
  const certificates = join(folder, 'certificates.pem')
  await writeFile(certificates, rootCertificates[0] ?? '')
  const words = ["it's", '', 'a  b', '$HOME', '\\', '"', 'ä\n']
  const { ended } = start(['sh', '-c', script, 'sh', ...words], {
    ...process.env,
    P2PDMA_TEST_VARIABLE: "two\n'lines'",
    NODE_EXTRA_CA_CERTS: certificates,
  })
  const { code, stdout, stderr } = await ended
  t.equal(code, 7)
  const [release, ...rest] = stdout.split('\n')
  t.match(release, /^7\.\d+\.\d+.*-amd64$/)
  t.equal(rest.join('\n'), `${words.join('|')}|\n${folder}\nno terminal\ntwo\n'lines'\n\n`)
  const files = 'to stderr\n/dev/dma_heap/system\n/dev/dri/card0\n/dev/udmabuf\n'
  t.equal(stderr, `${files}${'../../../bus/pci/drivers/vfio-pci\n'.repeat(3)}`)
  t.strictSame(readFileSync(join(folder, 'rdma'), 'utf8').trim().split('\n'), [
    ...['4: ACTIVE', 'p2p0', '0000:0000:0000:0000:0000:ffff:0a00:0001'],
    ...['4: ACTIVE', 'p2p1', '0000:0000:0000:0000:0000:ffff:0a00:0002'],
    ...['rdma_cm', 'uverbs0', 'uverbs1'],
    'unlimited',
    "the root's shell",
    '10.0.0.2/24',
  ])
  const made = readFileSync(join(folder, 'made/file'), 'utf8')
  t.equal(made, Array.from({ length: 50000 }, (_, i) => `${i + 1}\n`).join(''))
})

t.test('the default machine: IOMMU groups, the memory device, two NICs, modules', async (t) => {
  const script = `
    for device in 10 11 12; do
      cd /sys/bus/pci/devices/0000:00:$device.0
      echo "$(cat vendor) $(cat device) $(basename "$(dirname "$(readlink iommu_group)")")"
    done
    modprobe -a vfio-pci rdma_rxe && ls -d /sys/module/vfio_pci /sys/module/rdma_rxe
    ls -d /sys/kernel/debug/dma_buf
    nproc`
  const { code, stdout, stderr } = await rig('--smp', '1', '--', 'sh', '-c', script)
  t.equal(stderr, '')
  t.equal(code, 0)
  t.strictSame(stdout.trim().split('\n'), [
    '0x1af4 0x1110 iommu_groups',
    '0x8086 0x10d3 iommu_groups',
    '0x8086 0x10d3 iommu_groups',
    '/sys/module/rdma_rxe',
    '/sys/module/vfio_pci',
    '/sys/kernel/debug/dma_buf',
    '1',
  ])
})

// Idle for most of its time: it has that beside those that follow.
let endless: Promise<Outcome>
t.test('one that does not end is begun', async (t) => {
  const script = 'echo begun; echo data >closed-file; sleep 1000'
  const { child, ended } = start(['--timeout', '45', 'sh', '-c', script])
  endless = ended
  await Promise.race([once(child.stdout, 'data'), ended])
  t.equal(child.exitCode, null)
})

t.test('devices by option, p2pdma on the PATH, what the command left is killed', async (t) => {
  const script = `
    cat /sys/bus/pci/devices/*/device | grep -c -e 0x11e8 -e 0x10d3
    p2pdma rig --help | head -1
    sleep 1000 &`
  // The stock kernel by its path, as one's own would be: its modules are beside the image.
  const { image } = findKernel()
  const options = ['--no-default-devices', '--device', 'edu', '--memory', '1G', '--kernel', image]
  const { code, stdout, stderr } = await rig(...options, 'sh', '-c', script)
  t.equal(stderr, '')
  t.equal(stdout, '1\nusage: p2pdma rig [OPTIONS] [--] COMMAND...\n')
  t.equal(code, 0)
})

t.test('a command that is not there', async (t) => {
  const { code, stdout, stderr } = await rig('no-such-command')
  t.equal(code, 127)
  t.equal(stdout, '')
  t.match(stderr, /no-such-command: not found/)
})

t.test('a device that QEMU does not know', async (t) => {
  const { code, stdout, stderr } = await rig('--device', 'no-such-device', 'true')
  t.equal(code, 125)
  t.equal(stdout, '')
  t.match(stderr, /'no-such-device' is not a valid device model name \(ERR_RIG_QEMU\)\nhint: /)
})

t.test('a kernel that is not in the cache', async (t) => {
  const { code, stderr } = await rig('--kernel', '1.0', 'true')
  t.equal(code, 125)
  t.match(stderr, /no kernel 1\.0 .*\(ERR_RIG_KERNEL_MISSING\)\nhint: p2pdma rig --setup/)
})

t.test('the guest panics', async (t) => {
  const { code, stderr } = await rig('sh', '-c', 'echo c >/proc/sysrq-trigger')
  t.equal(code, 125)
  t.match(stderr, /kernel panicked: sysrq triggered crash[^]*\(ERR_RIG_PANIC\)/)
  const log = /hint: the boot's log is (\S+)/.exec(stderr)?.[1] ?? ''
  t.match(readFileSync(log, 'utf8'), /sysrq triggered crash/)
})

t.test('the guest ends under the command', async (t) => {
  const { code, stderr } = await rig('sh', '-c', 'echo o >/proc/sysrq-trigger; sleep 100')
  t.equal(code, 125)
  t.match(stderr, /ended before the command did[^]*\(ERR_RIG_GUEST\)/)
})

t.test('a command that does not end; what it has written is there', async (t) => {
  const { code, stdout, stderr } = await endless
  t.equal(code, 124)
  t.equal(stdout, 'begun\n')
  t.match(stderr, /^p2pdma: .* did not end within 45000 ms \(ERR_RIG_TIMEOUT\)\nhint: .*\n$/)
  t.equal(readFileSync(join(folder, 'closed-file'), 'utf8'), 'data\n')
})

for (const [signal, code, when] of [
  ['SIGINT', 130, 'while it boots'],
  ['SIGTERM', 143, 'under the command'],
  ['SIGKILL', null, 'while it boots'],
] as const) {
  t.test(`${signal} takes the machine along, ${when}`, async (t) => {
    const { child, ended } = start(['sh', '-c', 'echo up; sleep 1000'])
    if (when === 'under the command') await once(child.stdout, 'data')
    let machines = machinesUnder(child.pid ?? 0)
    while (machines.length === 0 && child.exitCode === null) {
      await sleep(20)
      machines = machinesUnder(child.pid ?? 0)
    }
    t.equal(machines.length, 1)
    child.kill(signal)
    t.equal((await ended).code, code)
    // The kernel kills an orphan, but does not wait for its end.
    while (machinesOf(machines).length > 0) await sleep(20)
    t.pass('QEMU is gone')
  })
}

t.test('a reader that goes away ends the run', async (t) => {
  const { child, ended } = start(['yes'])
  await once(child.stdout, 'data')
  child.stdout.destroy()
  t.equal((await ended).code, 141)
})
