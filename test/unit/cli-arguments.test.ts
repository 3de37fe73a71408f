/** The command line with odd arguments: code 2, a reason, and never a stack trace. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const program = fileURLToPath(new URL('../../lib/cli/main.js', import.meta.url))

t.setTimeout(300_000)

/** By a shell: an argument of Node's own cannot be other than UTF-8. */
function run(args: string): Promise<{ code: number | null; stderr: string }> {
  return new Promise((resolve) => {
    const command = `exec "$0" "$1" ${args}`
    const options = { timeout: 60_000, killSignal: 'SIGKILL' } as const
    const child = execFile(
      '/bin/sh',
      ['-c', command, process.execPath, program],
      options,
      (_, __, stderr) => resolve({ code: child.exitCode, stderr }),
    )
  })
}

const odd = [
  `''`,
  `constructor`,
  `"$(printf '\\377\\376')"`,
  `smoke ''`,
  `smoke --nonsense`,
  `smoke --engine`,
  `smoke --engine ''`,
  `smoke --engine "$(printf '\\377')"`,
  `smoke --moves 1e999`,
  `smoke --moves 99999999999999999999`,
  `smoke --moves -1`,
  `smoke --moves ''`,
  `smoke --seconds NaN`,
  `smoke --size 9007199254740993`,
  `bind`,
  `bind ''`,
  `bind nothing`,
  `unbind "$(printf '\\377')"`,
  `serve --port 65536`,
  `serve --port ''`,
  `rig --nonsense`,
  `rig --memory ''`,
]

for (const args of odd) {
  void t.test(`p2pdma ${args}`, async (t) => {
    const { code, stderr } = await run(args)
    t.equal(code, 2, stderr)
    t.match(stderr, /^p2pdma[^\n]*\S/, 'the reason comes first')
    t.notMatch(stderr, /^\s+at |node:internal/m, 'no stack trace')
  })
}
