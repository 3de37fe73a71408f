/** Modules that register what the command line can name then. */
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { P2pdmaError } from '../errors.js'

/** Loads them one after the other: what each throws is told with its name. */
export async function loadPlugins(modules: readonly string[]): Promise<void> {
  for (const each of modules) {
    try {
      await import(urlOf(each))
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
  if (/^[./]/.test(module)) return pathToFileURL(resolve(module)).href
  return pathToFileURL(createRequire(join(folder, 'x')).resolve(module)).href
}
