/** Dma-bufs on soft-RoCE: one boot of the rig with the modules of test/modules. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { root } from '../kernel/list.js'
import { environment, main, runInGuest } from './guest.js'

// Where the cache has no modules yet they are built: a download of 250 MB, and the compiler.
t.test('set up once', async (t) => {
  const options = { cwd: root, env: environment, encoding: 'utf8' } as const
  const { status, stderr, stdout } = spawnSync(
    process.execPath,
    [main, 'rig', '--setup', '--rxe-dmabuf'],
    options,
  )
  t.equal(status, 0, stderr)
  t.equal(stdout, '')
  t.match(stderr, /soft-RoCE with dma-bufs is .*\/rdma_rxe\.ko/)
})

// Beside those that warn the tests must find none: they have a boot of their own.
t.test('what the kernel complains of fails a test, and the run, with its text', async (t) => {
  const complain = (word: string) => `echo '${word}' >/dev/p2pdma_complain`
  const script = `
    ${complain('warn allowed: 1')}
    for word in refcount bounds atomic; do ${complain('$word')}; done
    sysctl -q kernel.hung_task_timeout_secs=2 kernel.hung_task_warnings=1
    ${complain('hang')} &
    until dmesg | grep -q 'blocked for more than'; do sleep 0.2; done
    ${complain('wake')}
    wait
    "$0" bundle/test/kernel/run.js "$@"
    echo "the tests ended with $?"`.replaceAll("'$word'", '"$word"')
  const program = 'run bundle/test/kernel/complain-child.js twice'
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      ...[
        main,
        'rig',
        '--rxe-dmabuf',
        '--timeout',
        '600',
        '--allow-complaint',
        'allowed: \\d',
        '--',
      ],
      ...['sh', '-c', script, process.execPath, program],
    ],
    { cwd: root, env: environment, encoding: 'utf8' },
  )
  t.equal(status, 123, 'the command ended with 0, under a kernel that did not think so')
  t.match(stdout, /^ok 1 - bundle.test.kernel.complain-child.js twice # time/m)
  const text = 'p2pdma_complain: twice WARNING: .*complain_write'
  t.match(
    stdout,
    new RegExp(
      `^not ok 2 - the kernel complains during bundle/test/kernel/complain-child.js: ${text}` +
        String.raw`[^\n]*\n {2}---\n {2}kernel: \|\n {4}-+\[ cut here \]-+\n[^]* {4}---\[ end trace`,
      'm',
    ),
  )
  t.match(stdout, /^the tests ended with 1$/m)
  const summaries = [...stderr.matchAll(/^rig: the guest's kernel complains: (.*)$/gm)]
  const wanted = [
    /^refcount_t: decrement hit 0; leaking memory\. WARNING: lib.refcount\.c/,
    /^UBSAN: array-index-out-of-bounds in .*p2pdma_complain\.c/,
    /^BUG: scheduling while atomic: /,
    /^INFO: task sh:\d+ blocked .*for more than \d+ seconds/,
    new RegExp(`^${text}`),
  ]
  t.match(
    summaries.map(([, summary]) => summary),
    wanted,
    'each with its kind',
  )
  t.equal(summaries.length, wanted.length, 'the allowed one is not told')
  t.match(stderr, /^ {4} __schedule\+0x/m, 'with the stack of what hangs')
  t.match(stderr, /^hint: its log is \S+; --allow-complaint names what is expected$/m)
})

await runInGuest('guest with --rxe-dmabuf', 'rxe-dmabuf', ['--rxe-dmabuf'])
