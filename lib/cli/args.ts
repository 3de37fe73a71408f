/** What the commands have in common: options, and what a misspelt one gets. */
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { P2pdmaError } from '../errors.js'

/** A command line that cannot be understood: usage on stderr, exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

type Options = NonNullable<ParseArgsConfig['options']>

/** `parseArgs`, strict, with a UsageError for what it does not know. */
export function parseOptions<const T extends Options>(
  argv: readonly string[],
  options: T,
): ReturnType<typeof parseArgs<{ options: T; strict: true }>>['values'] {
  try {
    return parseArgs({ args: [...argv], options, strict: true }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
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

/** An error as the commands print it. */
export function printError(error: unknown): void {
  if (error instanceof P2pdmaError) {
    process.stderr.write(`p2pdma: ${error.message} (${error.code})\n`)
    if (error.hint !== undefined) process.stderr.write(`hint: ${error.hint}\n`)
  } else {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.stderr.write(`p2pdma: ${text}\n`)
  }
}
