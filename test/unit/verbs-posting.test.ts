/** What a provider says of posts and completions is clamped: test/native/fake-provider.cc. */
import t from 'tap'
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { compile } from './native-help.js'

t.setTimeout(600_000)

const isThere = existsSync('/usr/include/infiniband/verbs.h')

t.test('a fake provider', { skip: isThere ? false : 'no headers of libibverbs' }, (t) => {
  const sources = ['object', 'send_chain', 'rows/queues']
  const program = compile('fake-provider', [
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=undefined',
    ...sources.map((name) => `native/verbs/${name}.cc`),
    'test/native/fake-provider.cc',
    '-pthread',
  ])
  t.equal(execFileSync(program).toString(), 'ok\n')
  t.end()
})
