/**
 * Writes TAP 14, or KTAP 1, which the kernel's test runners read (the kernel's
 * Documentation/dev-tools/ktap.rst).
 */

export type Diagnostics = Readonly<Record<string, unknown>>

export const DIALECTS = ['tap', 'ktap'] as const
export type Dialect = (typeof DIALECTS)[number]

export class TapWriter {
  readonly #write: (text: string) => void
  readonly #dialect: Dialect
  readonly #indent: string
  #count = 0

  constructor(write: (text: string) => void, dialect: Dialect = 'tap', indent = '') {
    this.#write = write
    this.#dialect = dialect
    this.#indent = indent
  }

  /** The first line. */
  version(): void {
    this.#line(this.#dialect === 'ktap' ? 'KTAP version 1' : 'TAP version 14')
  }

  /** How many tests there are; before the first or, in TAP, after the last. */
  plan(count: number): void {
    this.#line(`1..${count}`)
  }

  /** Nothing is tested, instead of a plan: why, and what would help. */
  skipAll(reason: string): void {
    this.#line(`1..0 # SKIP ${reason.replaceAll('\n', ' ')}`)
  }

  comment(text: string): void {
    for (const line of text.split('\n')) this.#line(`# ${line}`)
  }

  test(ok: boolean, name: string, diagnostics: Diagnostics = {}): void {
    const result = ok ? 'ok' : 'not ok'
    // JSON is YAML, in its flow style.
    const lines = Object.entries(diagnostics).map(
      ([key, value]) => `${key}: ${JSON.stringify(value) ?? 'null'}`,
    )
    // KTAP has none of YAML: what explains a result stands before it.
    if (this.#dialect === 'ktap') for (const line of lines) this.comment(line)
    this.#point(result, name)
    if (this.#dialect === 'ktap' || lines.length === 0) return
    for (const line of ['---', ...lines, '...']) this.#line(`  ${line}`)
  }

  /** One that is not run; the reason says what would help. */
  skip(name: string, reason: string): void {
    this.#point('ok', name, `SKIP ${reason}`)
  }

  /** The writer for a subtest of `count` tests; end it with `test()` here under the same name. */
  subtest(name: string, count: number): TapWriter {
    const title = `Subtest: ${this.#escaped(name)}`
    if (this.#dialect === 'tap') this.comment(title)
    const indent = this.#indent + (this.#dialect === 'ktap' ? '  ' : '    ')
    const writer = new TapWriter(this.#write, this.#dialect, indent)
    if (this.#dialect === 'ktap') {
      writer.version()
      writer.comment(title)
    }
    writer.plan(count)
    return writer
  }

  /** Tests written so far. */
  get count(): number {
    return this.#count
  }

  /** The run ends here. KTAP knows a test's error only, and this becomes one. */
  bailOut(reason: string): void {
    if (this.#dialect === 'ktap')
      this.#point('not ok', 'the run came to its end', `ERROR ${reason}`)
    else this.#line(`Bail out! ${oneLine(reason)}`)
  }

  #point(result: 'ok' | 'not ok', name: string, directive?: string): void {
    this.#count++
    const dash = this.#dialect === 'ktap' ? '' : '- '
    const end = directive === undefined ? '' : ` # ${oneLine(directive)}`
    this.#line(`${result} ${this.#count} ${dash}${this.#escaped(name)}${end}`)
  }

  /** A `#` would begin a directive; KTAP has no way to escape one. */
  #escaped(name: string): string {
    const text = oneLine(name)
    if (this.#dialect === 'ktap') return text.replaceAll('#', '')
    return text.replaceAll('\\', '\\\\').replaceAll('#', '\\#')
  }

  #line(text: string): void {
    this.#write(`${this.#indent}${text}\n`)
  }
}

const oneLine = (text: string) => text.replaceAll('\n', ' ')
