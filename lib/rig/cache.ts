/** Where the rig keeps what it has fetched, built and logged. */
import { accessSync, constants, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { P2pdmaError } from '../errors.js'

/** The package's own folder (this file is dist/lib/rig/cache.js in it). */
export const packageRoot = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))))

let chosen: string | undefined

/**
 * The cache folder: `$XDG_CACHE_HOME/p2pdma`, else `~/.cache/p2pdma`, else
 * `.cache` in the package, the first that can be written.
 */
export function cacheFolder(): string {
  chosen ??= choose()
  return chosen
}

/** A folder in the cache; it exists afterwards. */
export function cachePath(...parts: string[]): string {
  const path = join(cacheFolder(), ...parts)
  mkdirSync(path, { recursive: true })
  return path
}

/**
 * Into the cache in one step, and never over what another run has put there meanwhile and may
 * be using: it is as good.
 */
export function putIntoCache(from: string, to: string): void {
  try {
    renameSync(from, to)
  } catch (error) {
    rmSync(from, { recursive: true, force: true })
    if (!existsSync(to)) throw error
  }
}

function choose(): string {
  const { XDG_CACHE_HOME: xdg, HOME: home } = process.env
  const candidates: string[] = []
  // The XDG specification says to ignore a relative path here.
  if (xdg !== undefined && isAbsolute(xdg)) candidates.push(join(xdg, 'p2pdma'))
  if (home !== undefined && isAbsolute(home)) candidates.push(join(home, '.cache', 'p2pdma'))
  candidates.push(join(packageRoot, '.cache'))
  for (const folder of candidates) {
    try {
      mkdirSync(folder, { recursive: true })
      accessSync(folder, constants.W_OK)
      return folder
    } catch {
      // The next one, then.
    }
  }
  throw new P2pdmaError(`no cache folder can be written: tried ${candidates.join(', ')}`, {
    code: 'ERR_RIG_CACHE',
    hint: 'set XDG_CACHE_HOME to a folder that can be written',
  })
}
