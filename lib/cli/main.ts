#!/usr/bin/env node
/** `p2pdma COMMAND ...`: finds the command, and turns what it throws into an exit code. */
import { readFileSync } from 'node:fs'
import { printError, UsageError } from './args.js'
import { brokenOutput } from './output.js'

export interface Command {
  /** One line, for the list of commands. */
  readonly summary: string
  /** What follows `p2pdma COMMAND`, for the usage. */
  readonly usage: string
  /** Runs it; the exit code. */
  run(argv: string[]): Promise<number>
}

/**
 * Loaded when called for: one command does not pay for another's imports. Its usage needs no
 * addon: a command imports what does when it runs.
 */
const commands: Record<string, () => Promise<Command>> = {
  bind: () => import('./bind.js'),
  rig: () => import('./rig.js'),
  serve: () => import('./serve.js'),
  smoke: () => import('./smoke.js'),
  unbind: () => import('./unbind.js'),
}

async function main(argv: string[]): Promise<number> {
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === '-h') {
    await help(name === undefined ? process.stderr : process.stdout)
    return name === undefined ? 2 : 0
  }
  if (name === '--version') {
    process.stdout.write(`${packageVersion()}\n`)
    return 0
  }
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (load === undefined) {
    process.stderr.write(`p2pdma: unknown command '${name}'\n`)
    await help(process.stderr)
    return 2
  }
  const command = await load()
  try {
    return await command.run(rest)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(
      `p2pdma ${name}: ${error.message}\nusage: p2pdma ${name} ${command.usage}\n`,
    )
    return 2
  }
}

function packageVersion(): string {
  const url = new URL('../../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(url, 'utf8')) as { version: string }).version
}

async function help(stream: NodeJS.WritableStream): Promise<void> {
  const lines = ['usage: p2pdma COMMAND [OPTIONS], p2pdma COMMAND --help, p2pdma --version']
  for (const [name, load] of Object.entries(commands)) {
    lines.push(`  ${name.padEnd(8)} ${(await load()).summary}`)
  }
  stream.write(`${lines.join('\n')}\n`)
}

/** For commands that do not see to it themselves: nobody reads, or there is no room. */
function onBrokenOutput(this: NodeJS.WriteStream, error: NodeJS.ErrnoException): void {
  if (this.listenerCount('error') > 1) return
  // The other one may be there, to say so.
  process.exit(brokenOutput('p2pdma', error))
}

for (const stream of [process.stdout, process.stderr]) stream.on('error', onBrokenOutput)
try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  printError(error)
  process.exitCode = 1
}
