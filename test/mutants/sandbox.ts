/**
 * A copy of the checkout in which one source file is changed. The control and
 * every mutant go through it in the same way.
 */
import { spawn, spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Parser, type Result } from 'tap-parser'
import ts from 'typescript'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const TIMEOUT_MS = 120_000

export interface Change {
  /** Relative to the checkout: a file of lib/ or native/. */
  file: string
  /** Occurs exactly once in the file. */
  find: string
  replace: string
}

export class Sandbox {
  readonly #path: string

  constructor() {
    const parent = join(root, '.cache/mutants')
    mkdirSync(parent, { recursive: true })
    this.#path = mkdtempSync(join(parent, 'm'))
    for (const each of ['lib', 'dist', 'native', 'package.json', 'binding.gyp', 'scripts']) {
      cpSync(join(root, each), this.#at(each), { recursive: true, preserveTimestamps: true })
    }
    symlinkSync(join(root, 'node_modules'), this.#at('node_modules'))
  }

  #at(path: string): string {
    return join(this.#path, path)
  }

  /** Makes the change and builds what it touches. */
  apply({ file, find, replace }: Change): void {
    const source = readFileSync(this.#at(file), 'utf8')
    const parts = source.split(find)
    if (parts.length !== 2) {
      throw new Error(`${file}: the text to change occurs ${parts.length - 1} times, not once`)
    }
    const changed = parts.join(replace)
    writeFileSync(this.#at(file), changed)
    if (file.startsWith('native/')) this.#buildNative()
    else {
      symlinkSync(join(root, 'build'), this.#at('build'))
      const { outputText } = ts.transpileModule(changed, {
        compilerOptions: {
          target: ts.ScriptTarget.ES2022,
          module: ts.ModuleKind.ESNext,
          verbatimModuleSyntax: true,
        },
      })
      writeFileSync(this.#at(join('dist', file.replace(/\.ts$/, '.js'))), outputText)
    }
  }

  /**
   * Compiles what has changed only: the objects of the checkout are newer than
   * the rest. The Makefile's rule for itself names the headers by a path
   * relative to the checkout, so it is taken out, and make is called directly.
   */
  #buildNative(): void {
    cpSync(join(root, 'build'), this.#at('build'), {
      recursive: true,
      preserveTimestamps: true,
      // The stage has our sources by one.
      verbatimSymlinks: true,
    })
    const stage = this.#at('build/stage/build')
    const makefile = join(stage, 'Makefile')
    const rules = readFileSync(makefile, 'utf8').replace(/^Makefile:.*\n(\t.*\n)*/m, '')
    writeFileSync(makefile, rules)
    const built = spawnSync('make', ['-C', stage, 'BUILDTYPE=Release'], { encoding: 'utf8' })
    if (built.status !== 0) throw new Error(`the mutant does not compile:\n${built.stderr}`)
    const addons = readdirSync(join(stage, 'Release')).filter((name) => name.endsWith('.node'))
    for (const name of addons) {
      cpSync(join(stage, 'Release', name), join(this.#at('build/Release'), name))
    }
  }

  /** Runs a compiled test file; returns the full names of the assertions that failed. */
  async run(test: string): Promise<{ failed: string[]; passed: number }> {
    const child = spawn(process.execPath, [join('dist/test', test)], {
      cwd: this.#path,
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    })
    const failed: string[] = []
    let passed = 0
    const parser = new Parser({ bail: false })
    const watch = (each: Parser) => {
      each.on('assert', (result: Result) => {
        if (result.ok) passed++
        else failed.push(result.fullname || result.name)
      })
      each.on('child', watch)
    }
    watch(parser)
    child.stdout.pipe(parser)
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
    if (code !== 0 && failed.length === 0) failed.push(`exit with ${code} and no failed assertion`)
    return { failed, passed }
  }

  [Symbol.dispose](): void {
    rmSync(this.#path, { recursive: true, force: true })
  }
}
