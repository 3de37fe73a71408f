// Makes native/abi.h of lib/abi.ts (--write), or says that it is another one's (--check).
import { readFileSync, writeFileSync } from 'node:fs'
import { join, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const header = join(root, 'native/abi.h')
const source = readFileSync(join(root, 'lib/abi.ts'), 'utf8')
const { outputText } = ts.transpileModule(source, {
  compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
})
const tables = await import(`data:text/javascript,${encodeURIComponent(outputText)}`)

const mode = process.argv[2]
if (mode !== '--check' && mode !== '--write') {
  console.error('usage: abi.mjs --check | --write')
  process.exit(2)
}

/** SOME_NAME as kSomeName. */
const constant = (name) =>
  `k${name.toLowerCase().replace(/(?:^|_)(.)/g, (_, first) => first.toUpperCase())}`

/** SomeName as some_name. */
const space = (name) => name.replace(/(?<!^)[A-Z]/g, '_$&').toLowerCase()

// In the order of the file, which a module's namespace does not keep.
const names = [...source.matchAll(/^export const (\w+)/gm)].map(([, name]) => name)
const parts = names.map((name) => {
  const table = tables[name]
  if (typeof table === 'number') return `constexpr uint32_t ${constant(name)} = ${table};`
  const values = Object.entries(table).map(([key, value]) => `  ${constant(key)} = ${value},`)
  const enumeration = [`enum ${name} : uint32_t {`, ...values, '};'].join('\n')
  return `namespace ${space(name)} {\n${enumeration}\n}  // namespace ${space(name)}`
})

const text = `// Made of lib/abi.ts by scripts/abi.mjs: change it there.
#pragma once

#include <cstdint>

namespace p2pdma::abi {

${parts.join('\n\n')}

}  // namespace p2pdma::abi
`
const isSame = readFileSync(header, { encoding: 'utf8', flag: 'a+' }) === text
if (mode === '--write' && !isSame) writeFileSync(header, text)
if (mode === '--check' && !isSame) {
  console.error('native/abi.h is not that of lib/abi.ts: node scripts/abi.mjs --write')
  process.exitCode = 1
}
