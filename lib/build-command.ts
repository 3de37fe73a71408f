/** How an addon that is missing is built. */
import { fileURLToPath } from 'node:url'

function quoted(path: string): string {
  return /^[\w/.@+:=-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`
}

const inPackage = (path: string) => quoted(fileURLToPath(new URL(`../../${path}`, import.meta.url)))

/**
 * For a shell, in whatever folder. It is no package manager's: `npm rebuild` does nothing,
 * and says nothing, where install scripts are off, as npm 12 and pnpm 10 have them.
 */
export const buildCommand = `node ${inPackage('scripts/build-native.mjs')}`

/** Where there is one that does not load: of another machine, perhaps, which a build takes for done. */
export const rebuildCommand = `rm -rf ${inPackage('build')} && ${buildCommand}`
