/** Modules that register what the command line can name then. */
import { statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { P2pdmaError } from '../errors.js'
import { UsageError } from './args.js'

/**
 * Loads them one after the other: what each throws is told with its name. Rejects with a
 * UsageError, before any is loaded, for one that is not there.
 */
export async function loadPlugins(modules: readonly string[]): Promise<void> {
  const found = modules.map((each) => [each, urlOf(each)] as const)
  for (const [each, url] of found) {
    try {
      await import(url)
    } catch (cause) {
      const { code = 'ERR_PLUGIN', hint, message } = cause as P2pdmaError
      throw new P2pdmaError(`--plugin ${each}: ${message}`, {
        code,
        argument: 'plugin',
        ...(hint !== undefined && { hint }),
        cause,
      })
    }
  }
}

/** A file as the shell has it, or a package that is installed where the command is run. */
function urlOf(module: string): string {
  const folder = process.cwd()
  if (/^[./]/.test(module)) {
    const path = resolve(module)
    if (statSync(path, { throwIfNoEntry: false })?.isFile() === true)
      return pathToFileURL(path).href
    throw new UsageError(`--plugin ${module}: there is no such file`)
  }
  try {
    return pathToFileURL(createRequire(join(folder, 'x')).resolve(module)).href
  } catch (cause) {
    const { message } = cause as Error
    throw new UsageError(`--plugin ${module}: ${message.split('\n', 1)[0] ?? message}`)
  }
}
