/** What is changed outside the process is noted; who finds the note puts it back. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { PciSystem } from '../../lib/kernel/pci/system.js'
import type { LinkChange } from '../../lib/kernel/undo/changes.js'
import { UndoJournal } from '../../lib/kernel/undo/journal.js'
import { isAlive, thisProcess } from '../../lib/kernel/undo/owner.js'

/** Without routes or addresses to restore, so that no program is run. */
const CONFIG = { addresses: '', routes: '', routes6: '' }
const NAMESPACE = 'net:[4026531840]'
const BOOT = '00000000-0000-4000-8000-000000000001'

function machine(t: Test) {
  const root = mkdtempSync(join(tmpdir(), 'p2pdma-undo-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  const file = (path: string, text: string) => {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  file('/sys/class/net/eth1/flags', '0x1002')
  file('/sys/class/net/eth1/ifindex', '7')
  file('/proc/sys/kernel/random/boot_id', `${BOOT}\n`)
  mkdirSync(join(root, 'proc/self/ns'), { recursive: true })
  symlinkSync(NAMESPACE, join(root, 'proc/self/ns/net'))
  const folder = join(root, 'run')
  const system = new PciSystem(root)
  const flags = () => Number(system.read('/sys/class/net/eth1/flags'))
  /** Of a process whose number nobody has. */
  const killed = { pid: 2 ** 22 + 1, startTime: 9, bootId: BOOT, pidNamespace: '' }
  const of = (owner = thisProcess(system)) => new UndoJournal(folder, system, owner)
  return { root, folder, system, file, flags, killed, of }
}

const down = (change: Partial<LinkChange> = {}): LinkChange => ({
  ...{ kind: 'link', name: 'eth1', index: 7, namespace: NAMESPACE, config: CONFIG },
  ...change,
})

void t.test('noted before, put back, and forgotten', async (t) => {
  const { folder, flags, of } = machine(t)
  const journal = of()
  const change = down()
  journal.note(change)
  const [name = ''] = readdirSync(folder)
  t.match(JSON.parse(readFileSync(join(folder, name), 'utf8')), {
    version: 1,
    owner: { pid: process.pid, bootId: BOOT },
    changes: [{ kind: 'link', name: 'eth1', index: 7 }],
  })
  t.equal(statSync(folder).mode & 0o777, 0o700)
  t.equal(statSync(join(folder, name)).mode & 0o777, 0o600)
  t.equal(flags(), 0x1002)
  journal.undo(change)
  t.equal(flags(), 0x1003)
  t.same(readdirSync(folder), [])
  t.same(journal.changes, [])
})

void t.test(
  'all that is left, the newest first; what cannot be put back stays noted',
  async (t) => {
    const { folder, flags, of } = machine(t)
    const journal = of()
    journal.note(down())
    journal.note(down({ name: 'eth2' }))
    t.match(journal.undoAll(), [/^the link of eth2 was taken down: eth2 is gone$/])
    t.equal(flags(), 0x1003)
    t.match(journal.changes, [{ name: 'eth2' }])
    t.equal(readdirSync(folder).length, 1)
  },
)

void t.test('a killed process: the next one puts it back, once', async (t) => {
  const { folder, flags, killed, of } = machine(t)
  of(killed).note(down())
  t.match(of().recover(), [
    { pid: killed.pid, what: 'the link of eth1 was taken down', error: null },
  ])
  t.equal(flags(), 0x1003)
  t.same(readdirSync(folder), [])
  t.same(of().recover(), [])
})

void t.test('left alone: a process that lives, another boot, another interface', async (t) => {
  const { folder, flags, file, killed, of } = machine(t)
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  const { startTime } = thisProcess(new PciSystem())
  // Of a fake /proc nothing is known of it: in doubt it lives.
  const living = { ...killed, pid: child.pid ?? 0, startTime }
  of(living).note(down())
  t.same(of().recover(), [])
  t.equal(flags(), 0x1002)
  child.kill('SIGKILL')
  await once(child, 'close')
  t.equal(of().recover().length, 1, 'and when it has gone')
  t.equal(flags(), 0x1003)

  file('/sys/class/net/eth1/flags', '0x1002')
  of({ ...killed, bootId: 'another' }).note(down())
  t.same(of().recover(), [])
  t.same(readdirSync(folder), [], 'a reboot has undone it')

  of(killed).note(down({ index: 6 }))
  t.match(of().recover(), [{ error: 'eth1 is gone' }])
  t.same(readdirSync(folder), [], 'there is nothing to put back')

  of(killed).note(down({ namespace: 'net:[1]' }))
  t.match(of().recover(), [{ error: 'eth1 is in another network namespace' }])
  t.equal(readdirSync(folder).length, 1, 'who runs there will find it')
  t.equal(flags(), 0x1002)
})

void t.test('a process number that is somebody else’s by now', async (t) => {
  const system = new PciSystem()
  const us = thisProcess(system)
  t.equal(isAlive(us, system), true)
  t.equal(isAlive({ ...us, startTime: us.startTime - 1 }, system), false)
  t.equal(isAlive({ ...us, startTime: 0, pidNamespace: 'pid:[1]' }, system), true, 'cannot be told')
  // A name with anything in it.
  const odd = spawn('bash', ['-c', 'exec -a "a) Z 1 (b" sleep 60'])
  const startTime = Number(
    readFileSync(`/proc/${odd.pid}/stat`, 'utf8').replace(/.*\) /s, '').split(' ')[19],
  )
  t.equal(isAlive({ ...us, pid: odd.pid ?? 0, startTime }, system), true)
  odd.kill('SIGKILL')
  await once(odd, 'close')
})

void t.test('nobody else’s word is taken', async (t) => {
  const { folder, flags, root, killed, of } = machine(t)
  of(killed).note(down())
  const [name = ''] = readdirSync(folder)
  const path = join(folder, name)
  const record = readFileSync(path, 'utf8')
  const rejected: [string, () => void][] = [
    ['others may write to it', () => chmodSync(path, 0o622)],
    ['half of it', () => writeFileSync(path, record.slice(0, 40))],
    ['another version', () => writeFileSync(path, record.replace('"version":1', '"version":2'))],
    ['a path', () => writeFileSync(path, record.replace('"eth1"', '"../eth1"'))],
    ['another kind', () => writeFileSync(path, record.replace('"link"', '"toString"'))],
    ['no changes', () => writeFileSync(path, '{"version":1}')],
    ['null', () => writeFileSync(path, 'null')],
    [
      'a link to it',
      () => {
        writeFileSync(join(root, 'elsewhere'), record)
        rmSync(path)
        symlinkSync(join(root, 'elsewhere'), path)
      },
    ],
  ]
  for (const [what, spoil] of rejected) {
    rmSync(path, { force: true })
    writeFileSync(path, record, { mode: 0o600 })
    spoil()
    t.same(of().recover(), [], what)
  }
  rmSync(path)
  writeFileSync(path, record, { mode: 0o600 })
  chmodSync(folder, 0o777)
  t.same(of().recover(), [], 'in a folder that others may write to')
  t.throws(() => of().note(down()), { code: 'ERR_NO_JOURNAL', cause: { code: 'EPERM' } })
  t.equal(flags(), 0x1002)
})
