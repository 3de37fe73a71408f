/** One thing, one name, one meaning: what lib exports in two files is two things of one name. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const lib = fileURLToPath(new URL('../../../lib', import.meta.url))

/** Each command's module has its own, under the names that the command line knows. */
const OF_COMMANDS = new Set(['run', 'summary', 'usage'])

const DECLARED =
  /^export (?:declare )?(?:abstract )?(?:async )?(?:class|interface|type|const|enum|function\*?) (\w+)/gm

t.test('no two files export the same name', (t) => {
  const places = new Map<string, Set<string>>()
  const files = readdirSync(lib, { recursive: true, encoding: 'utf8' })
  for (const file of files.filter((each) => each.endsWith('.ts'))) {
    for (const [, name = ''] of readFileSync(join(lib, file), 'utf8').matchAll(DECLARED)) {
      const isCommands = file.startsWith('cli/') && OF_COMMANDS.has(name)
      if (!isCommands) places.set(name, (places.get(name) ?? new Set()).add(file))
    }
  }
  t.ok(places.size > 500, `${places.size} names`)
  const twice = [...places].filter(([, of]) => of.size > 1)
  t.strictSame(
    twice.map(([name, of]) => `${name}: ${[...of].join(', ')}`),
    [],
  )
  t.end()
})
