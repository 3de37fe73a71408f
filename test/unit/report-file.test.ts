/** The file of a report: the whole of it, or as it was before. */
import { spawn, spawnSync } from 'node:child_process'
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
import t from 'tap'
import { ReportFile } from '../../lib/cli/report-file.js'

t.setTimeout(600_000)

const folder = mkdtempSync(join(tmpdir(), 'p2pdma-report-'))
t.teardown(() => rmSync(folder, { recursive: true }))

/** More than a pipe holds. */
const TEXT = `${'x'.repeat(1 << 18)}\n`
const read = (path: string) => readFileSync(path, 'utf8')

/** In a folder of its own, so that what is left beside it is seen. */
function place(name: string): string {
  mkdirSync(join(folder, name))
  return join(folder, name, 'report.json')
}

void t.test('a regular file: nothing before the report is written, then all of it', async (t) => {
  const path = place('regular')
  const made = new ReportFile(path)
  t.same(readdirSync(join(folder, 'regular')), [], 'to look touches nothing')
  await made.write(TEXT)
  t.equal(read(path), TEXT)
  chmodSync(path, 0o640)
  const { mtimeMs, ino } = statSync(path)
  const again = new ReportFile(path)
  t.match(statSync(path), { mtimeMs, ino }, 'the old one is as it was')
  await again.write('{}')
  t.equal(read(path), '{}')
  t.equal(statSync(path).mode & 0o7777, 0o640, 'with the mode that it had')
  t.not(statSync(path).ino, ino, 'whoever reads the old one has all of that')
  t.same(readdirSync(join(folder, 'regular')), ['report.json'], 'and nothing is left beside it')
})

void t.test('a link is followed, where it leads to nothing yet, too', async (t) => {
  const path = place('link')
  const link = join(folder, 'a-link')
  symlinkSync('link/report.json', link)
  await new ReportFile(link).write('first')
  t.equal(read(path), 'first')
  await new ReportFile(link).write('second')
  t.equal(read(path), 'second')
  t.equal(read(link), 'second', 'and is still there')
  symlinkSync('a-loop', join(folder, 'a-loop'))
  t.throws(() => new ReportFile(join(folder, 'a-loop')), { code: 'ELOOP' })
})

void t.test('what there is no room for leaves the old report as it was', (t) => {
  const path = place('short')
  writeFileSync(path, 'old')
  // The first write is short, the next one fails: EFBIG, as ENOSPC would be.
  const script = `
    const { ReportFile } = await import(process.argv[1])
    const file = new ReportFile(process.argv[2])
    await file.write('y'.repeat(1 << 16)).catch(({ code, message }) => console.log(code, message))`
  const module = new URL('../../lib/cli/report-file.js', import.meta.url).href
  const node = [process.execPath, '--input-type=module', '-e', script, module, path]
  const { stdout, stderr } = spawnSync('sh', ['-c', 'ulimit -f 8; exec "$@"', 'sh', ...node], {
    encoding: 'utf8',
  })
  t.match(
    { stdout, stderr },
    { stdout: /^EFBIG the report cannot be written to .*short/, stderr: '' },
  )
  t.equal(read(path), 'old')
  t.same(readdirSync(join(folder, 'short')), ['report.json'])
  t.end()
})

void t.test('where no file can be made beside it, it is written where it is', async (t) => {
  // Something is mounted on it: a rename has EBUSY, in a namespace of its own.
  const path = place('mounted')
  writeFileSync(path, 'old')
  const other = join(folder, 'mounted', 'other')
  writeFileSync(other, 'other')
  const script = `
    const { ReportFile } = await import(process.argv[1])
    await new ReportFile(process.argv[2]).write('new')`
  const module = new URL('../../lib/cli/report-file.js', import.meta.url).href
  const node = [process.execPath, '--input-type=module', '-e', script, module, path]
  const shell = 'mount --bind "$0" "$1" || exit 9; shift; exec "$@"'
  const { status, stderr } = spawnSync(
    'unshare',
    ['-rm', 'sh', '-c', shell, other, path, ...node],
    {
      encoding: 'utf8',
    },
  )
  if (status === 9 || /unshare failed|not permitted/.test(stderr)) {
    t.pass('something is mounted on it', { skip: `no mount namespace here: ${stderr}` })
    return
  }
  t.equal(stderr, '')
  t.equal(read(other), 'new')
  t.same(readdirSync(join(folder, 'mounted')).sort(), ['other', 'report.json'])
})

void t.test('a FIFO has a reader, or time runs out; a device is written where it is', async (t) => {
  const path = place('fifo')
  t.equal(spawnSync('mkfifo', [path]).status, 0)
  const file = new ReportFile(path)
  await t.rejects(new ReportFile(path, 50).write('x'), {
    code: 'ETIMEDOUT',
    message: /nobody reads .*fifo/,
    hint: /FIFO/,
  })
  const reader = spawn('sh', ['-c', 'sleep 0.3; cat "$0"', path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  reader.stdout.on('data', (part: Buffer) => (text += part.toString()))
  const closed = new Promise((resolve) => reader.once('close', resolve))
  await file.write(TEXT)
  await closed
  t.equal(text, TEXT)
  t.ok(statSync(path).isFIFO(), 'it is still one')
  // One that reads a little and no more.
  const idle = spawn('sh', ['-c', 'exec sleep 60 <"$0"', path])
  await t.rejects(new ReportFile(path, 500).write(TEXT), { code: 'ETIMEDOUT' })
  idle.kill()
  await t.rejects(new ReportFile('/dev/full').write('x'), { code: 'ENOSPC' })
  await new ReportFile('/dev/null').write('x')
})

void t.test('what cannot be written to is said beforehand', (t) => {
  t.throws(() => new ReportFile(folder), { code: 'EISDIR' })
  t.throws(() => new ReportFile(join(folder, 'none', 'x')), { code: 'ENOENT' })
  writeFileSync(join(folder, 'file'), '')
  t.throws(() => new ReportFile(join(folder, 'file', 'x')), { code: 'ENOTDIR' })
  t.end()
})

void t.test('what the shell has opened is that very file: /dev/stdout', (t) => {
  const path = place('stdout')
  const script = `
    const { ReportFile } = await import(process.argv[1])
    process.stdout.write('TAP')
    await new ReportFile('/dev/stdout').write('{}')`
  const module = new URL('../../lib/cli/report-file.js', import.meta.url).href
  const node = [process.execPath, '--input-type=module', '-e', script, module]
  spawnSync('sh', ['-c', 'out=$0; exec "$@" >"$out"', path, ...node])
  t.equal(read(path), 'TAP{}')
  const { stdout } = spawnSync('sh', ['-c', '"$@" | cat', 'sh', ...node], { encoding: 'utf8' })
  t.equal(stdout, 'TAP{}', 'and where it is a pipe')
  t.end()
})
