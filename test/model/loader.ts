/**
 * Loads modules of this repository, from their TypeScript, with globals of our
 * choice. They are compiled down to ES2016, where `async` is made of Promise:
 * of the one that is injected. Node's own modules come as they are.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compileFunction } from 'node:vm'
import ts from 'typescript'

/** The repository; this file runs as dist/test/model/loader.js. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

const GLOBALS = [
  'Promise',
  'queueMicrotask',
  'setTimeout',
  'clearTimeout',
  'setImmediate',
  'clearImmediate',
  'performance',
  'AbortController',
  'AbortSignal',
]

/** Replaces text that must occur exactly once: a fault put in on purpose. */
export interface Patch {
  /** Path from the repository's root. */
  readonly file: string
  readonly find: string
  readonly replace: string
}

type Factory = (...args: unknown[]) => void
const compiled = new Map<string, Factory>()
const nodeRequire = createRequire(import.meta.url)

export class Loader {
  readonly #factories = new Map<string, Factory>()
  readonly #patches: readonly Patch[]

  constructor(patches: readonly Patch[] = []) {
    this.#patches = patches
  }

  /** A fresh instance of the module (a path from the root) and of all it imports. */
  load(file: string, globals: Record<string, unknown>): Record<string, unknown> {
    const values = GLOBALS.map((name) => globals[name])
    const modules = new Map<string, { exports: Record<string, unknown> }>()
    const load = (path: string): Record<string, unknown> => {
      const known = modules.get(path)
      if (known !== undefined) return known.exports
      const module = { exports: {} }
      modules.set(path, module)
      const require = (name: string): unknown => {
        if (!name.startsWith('.')) return nodeRequire(name)
        return load(resolve(dirname(path), name.replace(/\.js$/, '.ts')))
      }
      this.#factory(path)(module.exports, require, module, ...values)
      return module.exports
    }
    return load(join(ROOT, file))
  }

  #factory(path: string): Factory {
    const known = this.#factories.get(path)
    if (known !== undefined) return known
    const source = this.#patched(path)
    const factory = compiled.get(source) ?? compile(path, source)
    compiled.set(source, factory)
    this.#factories.set(path, factory)
    return factory
  }

  #patched(path: string): string {
    let source = readFileSync(path, 'utf8')
    for (const patch of this.#patches) {
      if (join(ROOT, patch.file) !== path) continue
      const parts = source.split(patch.find)
      if (parts.length !== 2) {
        throw new Error(`${patch.file}: found ${parts.length - 1} times: ${patch.find}`)
      }
      source = parts.join(patch.replace)
    }
    return source
  }
}

function compile(path: string, source: string): Factory {
  const { outputText } = ts.transpileModule(source, {
    fileName: path,
    compilerOptions: {
      target: ts.ScriptTarget.ES2016,
      module: ts.ModuleKind.CommonJS,
      esModuleInterop: true,
    },
    transformers: { before: [plainFields] },
  })
  const names = ['exports', 'require', 'module', ...GLOBALS]
  return compileFunction(outputText, names, { filename: path }) as Factory
}

/** `#name` becomes a plain field: ES2016 would have a WeakMap for each, and we run very often. */
function plainFields(context: ts.TransformationContext): ts.Transformer<ts.SourceFile> {
  const owners: ts.ClassLikeDeclaration[] = []
  const plain = (name: ts.PrivateIdentifier): string => {
    const declares = (owner: ts.ClassLikeDeclaration) =>
      owner.members.some((member) => member.name !== undefined && textOf(member.name) === name.text)
    const owner = owners.findLastIndex(declares)
    return `_private_${owners[owner]?.name?.text ?? owner}_${name.text.slice(1)}`
  }
  const visit = (node: ts.Node): ts.Node => {
    if (ts.isPrivateIdentifier(node)) {
      // The left side of `#name in object` is an expression, elsewhere it is a name.
      const inTest = node.parent !== undefined && ts.isBinaryExpression(node.parent)
      return inTest
        ? context.factory.createStringLiteral(plain(node))
        : context.factory.createIdentifier(plain(node))
    }
    if (!ts.isClassLike(node)) return ts.visitEachChild(node, visit, context)
    owners.push(node)
    const result = ts.visitEachChild(node, visit, context)
    owners.pop()
    return result
  }
  return (file) => ts.visitEachChild(file, visit, context)
}

function textOf(name: ts.PropertyName): string | null {
  return ts.isPrivateIdentifier(name) ? name.text : null
}
