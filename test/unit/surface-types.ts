/** What the declarations say of the public surface: which of its callables return a promise. */
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import type { Promising } from './surface-walk.js'

const entry = fileURLToPath(new URL('../../lib/index.d.ts', import.meta.url))

/** By `name`, `Class.name` and `Class#name`; undefined for what is not declared. */
export function declaredPromises(): Promising {
  const program = ts.createProgram([entry], {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    types: ['node'],
  })
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(entry)
  const module = source && checker.getSymbolAtLocation(source)
  if (module === undefined) throw new Error(`${entry} exports nothing`)
  const found = new Map<string, boolean>()
  const note = (name: string, type: ts.Type) => {
    const signatures = type.getCallSignatures()
    if (signatures.length === 0) return
    const returns = signatures.map((each) => checker.typeToString(each.getReturnType()))
    found.set(
      name,
      returns.some((each) => each.includes('Promise<')),
    )
  }
  for (const symbol of checker.getExportsOfModule(module)) {
    const real = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
    if ((real.flags & ts.SymbolFlags.Value) === 0) continue
    const type = checker.getTypeOfSymbol(real)
    note(symbol.name, type)
    for (const each of type.getProperties()) {
      note(`${symbol.name}.${each.name}`, checker.getTypeOfSymbol(each))
    }
    if ((real.flags & ts.SymbolFlags.Class) === 0) continue
    for (const each of checker.getDeclaredTypeOfSymbol(real).getProperties()) {
      note(`${symbol.name}#${each.name}`, checker.getTypeOfSymbol(each))
    }
  }
  return (name) => found.get(name)
}
