// What the addons are built with, and where it is: for build-native.mjs.
import { accessSync, constants, existsSync, realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'

/** The file of a program, by PATH; undefined where there is none. */
function findProgram(name) {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

/** As seen from a module's place. */
function nodeGypFrom(place) {
  try {
    return createRequire(place).resolve('node-gyp/bin/node-gyp.js')
  } catch {
    return undefined
  }
}

/**
 * node-gyp: the package's own (in a checkout), the one that a package manager names to install
 * scripts, or one that a package manager carries, beside this Node or on the PATH.
 * undefined where there is none.
 */
export function nodeGyp() {
  const named = process.env.npm_config_node_gyp
  const places = [import.meta.url]
  const npm = join(dirname(dirname(process.execPath)), 'lib/node_modules/npm/index.js')
  for (const program of ['npm', 'pnpm', 'node-gyp']) {
    const file = findProgram(program)
    if (file === undefined) continue
    const real = realpathSync(file)
    places.push(real, join(dirname(dirname(real)), 'dist/index.js'))
  }
  const [own, ...others] = [places[0], npm, ...places.slice(1)].map(nodeGypFrom)
  return [own, named, ...others].find((file) => file !== undefined && existsSync(file))
}

/** What node-gyp runs: by the variables that name others, else by these names. */
const tools = [
  {
    name: 'python3',
    variables: ['NODE_GYP_FORCE_PYTHON', 'npm_config_python', 'PYTHON'],
    programs: ['python3', 'python'],
    debian: 'python3',
    fedora: 'python3',
  },
  { name: 'make', variables: ['MAKE'], programs: ['make'], debian: 'make', fedora: 'make' },
  { name: 'g++', variables: ['CXX'], programs: ['g++'], debian: 'g++', fedora: 'gcc-c++' },
]

/** null, or in one line what is missing and how to get it. */
export function missingTools() {
  const missing = tools.filter(
    ({ variables, programs }) =>
      !variables.some((name) => process.env[name]) &&
      !programs.some((name) => findProgram(name) !== undefined),
  )
  if (missing.length === 0) {
    if (nodeGyp() !== undefined) return null
    return 'the addon cannot be built: node-gyp is missing. Install `npm install --global node-gyp`'
  }
  const list = (key) => missing.map((tool) => tool[key])
  const names = list('name')
  const last = names.pop()
  const what = names.length === 0 ? `${last} is` : `${names.join(', ')} and ${last} are`
  return (
    `the addon cannot be built: ${what} missing. Install ` +
    `\`apt-get install ${list('debian').join(' ')}\` (Debian, Ubuntu) or ` +
    `\`dnf install ${list('fedora').join(' ')}\` (Fedora, RHEL)`
  )
}
