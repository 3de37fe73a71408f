/** What the commands have in common: options, and what a misspelt one gets. */
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { P2pdmaError } from '../errors.js'
import { explain } from '../failures/index.js'

/** A command line that cannot be understood: usage on stderr, exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

type Options = NonNullable<ParseArgsConfig['options']>

/** `parseArgs`, strict, with a UsageError for what it does not know. A value may begin with one dash. */
export function parseOptions<const T extends Options>(
  argv: readonly string[],
  options: T,
): ReturnType<typeof parseArgs<{ options: T; strict: true }>>['values'] {
  try {
    return parseArgs({ args: joinNegatives(argv, options), options, strict: true }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

/** `parseOptions` for a command that takes words, its `positionals`, beside its options. */
export function parseWords<const T extends Options>(
  argv: readonly string[],
  options: T,
): ReturnType<typeof parseArgs<{ options: T; strict: true; allowPositionals: true }>> {
  try {
    const args = joinNegatives(argv, options)
    return parseArgs({ args, options, strict: true, allowPositionals: true })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

/** `--size -1` as `--size=-1`, `--device "-trace x"`: `parseArgs` would take the value for an option. */
function joinNegatives(argv: readonly string[], options: Options): string[] {
  const words: string[] = []
  for (const word of argv) {
    const name = words.at(-1)?.slice(2) ?? ''
    if (/^-[^-]/.test(word) && options[name]?.type === 'string')
      words.push(`${words.pop()}=${word}`)
    else words.push(word)
  }
  return words
}

/**
 * Splits `[OPTIONS] [--] COMMAND...`: options come first and end at the first
 * word that is none, or at `--`.
 */
export function splitCommand(
  argv: readonly string[],
  options: Options,
): { own: string[]; command: string[] } {
  let at = 0
  while (at < argv.length) {
    const word = argv[at]!
    if (word === '--') return { own: argv.slice(0, at), command: argv.slice(at + 1) }
    if (!word.startsWith('-') || word === '-') break
    const takesValue = options[word.slice(2)]?.type === 'string'
    at += takesValue ? 2 : 1
  }
  return { own: argv.slice(0, at), command: argv.slice(at) }
}

/** A whole number of an option, in its range. */
export function wholeNumber(name: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || !(value >= min && value <= max)) {
    throw new UsageError(`--${name} must be a whole number from ${min} to ${max}, not '${text}'`)
  }
  return value
}

/** The same, where it may be left out. */
export function wholeNumberOrNull(
  name: string,
  text: string | undefined,
  { min, max }: { min: number; max: number },
): number | null {
  return text === undefined ? null : wholeNumber(name, text, min, max)
}

/** Bytes, as `4096`, `512K`, `256M`, `1G`; in the range. */
export function byteCount(name: string, text: string, min: number, max: number): number {
  const [, digits, unit = ''] = /^(\d+)([KMGT]?)$/i.exec(text) ?? []
  const value = Number(digits) * 1024 ** ' KMGT'.indexOf(unit.toUpperCase() || ' ')
  if (!(value >= min && value <= max)) {
    throw new UsageError(`--${name} must be bytes from ${min} to ${max}, as 256M, not '${text}'`)
  }
  return value
}

/** A number of an option, fractions too, in its range. */
export function decimal(name: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || !(value >= min && value <= max)) {
    throw new UsageError(`--${name} must be a number from ${min} to ${max}, not '${text}'`)
  }
  return value
}

/** An error as the commands print it. */
export function printError(error: unknown): void {
  if (error instanceof P2pdmaError) {
    const [first, ...rest] = error.message.split('\n')
    const lines = [`p2pdma: ${first} (${error.code})`, ...rest]
    process.stderr.write(`${lines.join('\n')}\n`)
    if (error.hint !== undefined) process.stderr.write(`hint: ${error.hint}\n`)
  } else if (error instanceof Error) {
    // What the system says concerns the user; anything else is a fault of ours.
    const { code = '', syscall, path } = error as NodeJS.ErrnoException
    if (syscall === undefined) {
      process.stderr.write(`p2pdma: ${error.stack ?? error.message}\n`)
      return
    }
    process.stderr.write(`p2pdma: ${error.message}\n`)
    const { hint } = explain({ code, syscall, path })
    if (hint !== undefined) process.stderr.write(`hint: ${hint}\n`)
  } else {
    process.stderr.write(`p2pdma: ${String(error)}\n`)
  }
}
