/**
 * Runs programs in the guest, one after the other, and prints what came of them
 * as TAP 14. Each argument is one: `tap FILE ARGUMENTS` prints TAP, which
 * becomes a subtest; of `run FILE ARGUMENTS` the exit code counts. What the kernel
 * complains of meanwhile is a failure, too, unless complaints.ts names it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { release } from 'node:os'
import { createInterface } from 'node:readline'
import { KernelWatch } from './complaints.js'

/** Seconds for a file: emulated on a busy machine, loading one process may take half a minute. */
const PATIENCE = '900'

let points = 0
let assertions = 0
let failures = 0

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function point(ok: boolean, name: string, since?: number): void {
  if (!ok) failures++
  const time = since === undefined ? '' : ` # time=${Date.now() - since}ms`
  say(`${ok ? 'ok' : 'not ok'} ${++points} - ${name}${time}`)
}

/** Where the subtests begin (their comments' indentation) that are not closed yet. */
const open: number[] = []

/** Counts the test points that close no subtest. */
function count(line: string): void {
  const [, indentation, word] = /^( *)(# Subtest: |ok\b|not ok\b)/.exec(line) ?? []
  if (indentation === undefined) return
  if (word === '# Subtest: ') open.push(indentation.length)
  else if (open.at(-1) === indentation.length) open.pop()
  else assertions++
}

/** A subtest whose lines are the file's; ended by a point of the parent's. */
async function runTest(words: string[]): Promise<void> {
  const since = Date.now()
  const name = words.join(' ')
  say(`# Subtest: ${name}`)
  const child = spawn(process.execPath, words, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TAP: '1', TAP_TIMEOUT: PATIENCE },
  })
  let planned = false
  for await (const line of createInterface({ input: child.stdout })) {
    // The version is the outermost stream's to say.
    if (line.startsWith('TAP version')) continue
    if (/^1\.\.\d/.test(line)) planned = true
    count(line)
    say(`    ${line}`)
  }
  const code = child.exitCode ?? (await exitCode(child))
  // A file that died before its plan: close the subtest, or what follows would be read as its own.
  if (!planned) say('    1..0')
  point(code === 0 && planned, name, since)
}

/** An example: it shows what it is meant to by ending well. */
async function runProgram(words: string[]): Promise<void> {
  const since = Date.now()
  const child = spawn(process.execPath, words, { stdio: ['ignore', 2, 2] })
  assertions++
  point((await exitCode(child)) === 0, words.join(' '), since)
}

async function exitCode(child: ReturnType<typeof spawn>): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'close')
  return child.exitCode
}

/** A failure for each complaint, with the kernel's text. */
function kernelPoints(watch: KernelWatch, program: string): void {
  for (const { summary, lines } of watch.take(program)) {
    assertions++
    point(false, `the kernel complains during ${program}: ${tapText(summary)}`)
    say(['  ---', '  kernel: |', ...lines.map((line) => `    ${line}`), '  ...'].join('\n'))
  }
}

/** So that it is no directive. */
const tapText = (text: string) => text.replaceAll('#', '\\#')

say('TAP version 14')
say(`# kernel ${release()}`)
const guest = process.env['P2PDMA_RIG'] === '1'
const watch = guest || process.getuid?.() === 0 ? new KernelWatch() : null
if (watch === null) say('# not root: what the kernel complains of is not seen')
for (const argument of process.argv.slice(2)) {
  const [kind, ...words] = argument.split(' ')
  await (kind === 'tap' ? runTest(words) : runProgram(words))
  if (watch !== null) kernelPoints(watch, words[0] ?? '')
}
if (watch !== null) {
  point(watch.lost === 0, `the kernel's log was read whole: ${watch.lost} records lost`)
  assertions++
  watch.close()
}
if (process.env['P2PDMA_HARDWARE'] !== '1') {
  point(guest, `these ran in the guest, on ${release()}`)
  assertions++
}
say(`# ${guest ? 'guest' : 'this machine'} ran ${assertions} assertions on ${release()}`)
say(`1..${points}`)
if (failures > 0) process.exitCode = 1
