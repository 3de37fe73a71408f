/**
 * This checkout beside another one: the figures of figures.ts, each side in a
 * process of its own that loads its library, asked in turns for one measurement
 * at a time. How a process happens to be laid out, compiled and scheduled makes
 * some per cent for as long as it lives, so there are several of each.
 */
import { fork, type ChildProcess, type StdioOptions } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { P2pdmaError } from '../../../lib/errors.js'
import { ratioOf, type Ratio } from '../measure.js'
import type { Answer } from './child.js'
import { figures } from './figures.js'

/** What a ratio's lower quartile is to be at most. */
export const LIMIT = 1.03

/** How long one measurement may take, its subject's making included, ms. */
const PATIENCE_MS = 300_000

const root = fileURLToPath(new URL('../../../../', import.meta.url))
const program = fileURLToPath(new URL('child.js', import.meta.url))

function refusal(argument: string, message: string, hint: string): P2pdmaError {
  return new P2pdmaError(message, { code: 'ERR_INVALID_ARG_VALUE', argument, hint })
}

/** The folder, once it is known to be a checkout that has been built; ERR_INVALID_ARG_VALUE. */
export function checkBeside(folder: string, suite: string): string {
  if (suite !== 'core' && !figures.some((figure) => figure.suite === suite)) {
    throw refusal(
      'suite',
      `the suite ${suite} cannot be run beside another checkout`,
      'it has figures of the host alone: core, post, moves or import',
    )
  }
  const path = resolve(folder)
  if (folder === '' || statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw refusal(
      'beside',
      `${JSON.stringify(folder)} is no folder`,
      'name the root of another checkout',
    )
  }
  if (!isOurs(join(path, 'package.json'))) {
    throw refusal(
      'beside',
      `${folder} is no checkout of p2pdma`,
      'name the folder that has its package.json',
    )
  }
  for (const built of ['dist/lib/index.js', 'build/Release/p2pdma.node']) {
    if (existsSync(join(path, built))) continue
    throw refusal(
      'beside',
      `${folder} has not been built: it has no ${built}`,
      `in ${folder}: npm ci && npm run build`,
    )
  }
  return path
}

function isOurs(file: string): boolean {
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown } | null)?.name === 'p2pdma'
  } catch {
    return false
  }
}

/** One side, in a process of its own. */
class Side {
  readonly #folder: string
  readonly #child: ChildProcess

  constructor(folder: string, quick: boolean) {
    this.#folder = folder
    const { href } = pathToFileURL(join(folder, 'dist/lib/index.js'))
    // What a library prints is none of the report.
    const stdio: StdioOptions = ['ignore', 2, 2, 'ipc']
    this.#child = fork(program, [href, quick ? 'quick' : 'whole'], { cwd: folder, stdio })
  }

  measure(name: string): Promise<number> {
    const child = this.#child
    return new Promise((resolve, reject) => {
      const fail = (what: string) => {
        reject(
          new P2pdmaError(`${name} could not be measured in ${this.#folder}: ${what}`, {
            code: 'ERR_CHILD_FAILED',
          }),
        )
      }
      const onMessage = (message: unknown) => {
        done()
        const answer = message as Answer
        if ('value' in answer) resolve(answer.value)
        else fail(answer.error)
      }
      const onExit = (code: number | null, signal: string | null) => {
        done()
        fail(`its process ended with ${code ?? signal}`)
      }
      const onError = (error: Error) => {
        done()
        fail(error.message)
      }
      const timer = setTimeout(() => {
        done()
        fail(`it took longer than ${PATIENCE_MS / 1000} s`)
      }, PATIENCE_MS)
      const done = () => {
        clearTimeout(timer)
        child.off('message', onMessage).off('exit', onExit).off('error', onError)
      }
      child.on('message', onMessage).on('exit', onExit).on('error', onError)
      if (child.connected) child.send(name)
      else onExit(child.exitCode, child.signalCode)
    })
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }
}

type Pair = [ours: number, theirs: number]

/**
 * Ratios of this checkout's figures to the other's. In each pair the first
 * alternates; one beforehand is thrown away.
 */
export async function beside(
  folder: string,
  suite: string,
  quick: boolean,
  progress: (text: string) => void,
): Promise<Ratio[]> {
  const chosen = figures.filter((figure) => suite === 'core' || figure.suite === suite)
  const samples = new Map<string, Pair[]>(chosen.map(({ name }) => [name, []]))
  const processes = quick ? 1 : 6
  for (let i = 0; i < processes; i++) {
    progress(`processes ${i + 1} of ${processes}`)
    using ours = new Side(root, quick)
    using theirs = new Side(folder, quick)
    for (const { name } of chosen) {
      for (let pair = -1; pair < (quick ? 2 : 8); pair++) {
        const isOursFirst = (i + pair) % 2 === 0
        const first = await (isOursFirst ? ours : theirs).measure(name)
        const second = await (isOursFirst ? theirs : ours).measure(name)
        if (pair >= 0) samples.get(name)!.push(isOursFirst ? [first, second] : [second, first])
      }
    }
  }
  return chosen.map(({ name, unit }) => ratioOf(name, unit, samples.get(name)!, { processes }))
}

/** Those that are slower, or larger, beyond what chance makes. */
export function slower(ratios: readonly Ratio[]): Ratio[] {
  return ratios.filter(({ spread }) => spread[0] > LIMIT)
}
