/** What a package's declarations export, and what they name without exporting it. */
import ts from 'typescript'

/** Of a module: the types of its package that its exports name and it does not export. */
export function unexportedTypes(program: ts.Program, module: ts.Symbol, folder: string): string[] {
  const checker = program.getTypeChecker()
  const exported = new Set(checker.getExportsOfModule(module).map((each) => real(checker, each)))
  const found = new Set<string>()
  const look = (node: ts.Node): void => {
    const symbol = nameIn(node, checker)
    const [declaration] = symbol?.declarations ?? []
    const isOurs = declaration?.getSourceFile().fileName.startsWith(folder) === true
    if (symbol !== null && isOurs && !ts.isTypeParameterDeclaration(declaration)) {
      if (!exported.has(symbol)) found.add(symbol.name)
    }
    ts.forEachChild(node, look)
  }
  for (const { declarations } of exported) declarations?.forEach(look)
  return [...found].sort()
}

/** The names of which `export *` hides one: another export of the module has them. */
export function hiddenExports(program: ts.Program, module: ts.Symbol): string[] {
  const checker = program.getTypeChecker()
  const found = new Set<string>()
  const look = (module: ts.Symbol): void => {
    const seen = new Map(
      checker.getExportsOfModule(module).map((each) => [each.name, real(checker, each)]),
    )
    for (const statement of (module.valueDeclaration as ts.SourceFile).statements) {
      if (!ts.isExportDeclaration(statement) || statement.exportClause !== undefined) continue
      const inner = checker.getSymbolAtLocation(statement.moduleSpecifier!)!
      for (const each of checker.getExportsOfModule(inner)) {
        if (seen.get(each.name) !== real(checker, each)) found.add(each.name)
      }
      look(inner)
    }
  }
  look(module)
  return [...found].sort()
}

function real(checker: ts.TypeChecker, symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
}

/** What a node refers to, where it names a type. */
function nameIn(node: ts.Node, checker: ts.TypeChecker): ts.Symbol | null {
  const name = ts.isTypeReferenceNode(node)
    ? node.typeName
    : ts.isExpressionWithTypeArguments(node)
      ? node.expression
      : ts.isTypeQueryNode(node)
        ? node.exprName
        : ts.isImportTypeNode(node)
          ? node.qualifier
          : undefined
  const symbol = name && checker.getSymbolAtLocation(name)
  return symbol === undefined ? null : real(checker, symbol)
}
