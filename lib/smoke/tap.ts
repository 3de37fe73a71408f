/** Writes TAP 14. */

export type Diagnostics = Readonly<Record<string, unknown>>

export class TapWriter {
  readonly #write: (text: string) => void
  readonly #indent: string
  #count = 0

  constructor(write: (text: string) => void, indent = '') {
    this.#write = write
    this.#indent = indent
  }

  /** The first line. */
  version(): void {
    this.#line('TAP version 14')
  }

  /** How many tests there are; before the first or after the last. */
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

  test(ok: boolean, name: string, diagnostics?: Diagnostics): void {
    this.#count++
    this.#line(`${ok ? 'ok' : 'not ok'} ${this.#count} - ${escape(name)}`)
    if (diagnostics === undefined) return
    this.#line('  ---')
    for (const [key, value] of Object.entries(diagnostics)) {
      // JSON is YAML, in its flow style.
      this.#line(`  ${key}: ${JSON.stringify(value) ?? 'null'}`)
    }
    this.#line('  ...')
  }

  /** One that is not run; the reason says what would help. */
  skip(name: string, reason: string): void {
    this.#count++
    this.#line(`ok ${this.#count} - ${escape(name)} # SKIP ${reason.replaceAll('\n', ' ')}`)
  }

  /** The writer for a subtest; end it with `plan()`, then `test()` here under the same name. */
  subtest(name: string): TapWriter {
    this.comment(`Subtest: ${escape(name)}`)
    return new TapWriter(this.#write, `${this.#indent}    `)
  }

  /** Tests written so far. */
  get count(): number {
    return this.#count
  }

  bailOut(reason: string): void {
    this.#line(`Bail out! ${reason.replaceAll('\n', ' ')}`)
  }

  #line(text: string): void {
    this.#write(`${this.#indent}${text}\n`)
  }
}

/** A `#` would begin a directive. */
function escape(name: string): string {
  return name.replaceAll('\\', '\\\\').replaceAll('#', '\\#').replaceAll('\n', ' ')
}
