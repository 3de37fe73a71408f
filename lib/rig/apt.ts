/**
 * Packages of the Debian archive without touching the machine's own package
 * sources: apt with a state, a cache and a source list of its own. Only how to
 * reach the archive (its address, proxies) comes from the machine's apt.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { P2pdmaError } from '../errors.js'
import { runProgram, requireTool } from './tools.js'

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** A private apt over some suites, below `folder`. Needs no root. */
export class PrivateApt {
  readonly #env: NodeJS.ProcessEnv
  readonly #folder: string

  private constructor(folder: string, configuration: string) {
    this.#folder = folder
    this.#env = { ...process.env, APT_CONFIG: configuration, LC_ALL: 'C' }
  }

  /** `suites` as a source list has them, separated by spaces. */
  static async open(folder: string, suites: string): Promise<PrivateApt> {
    if (!existsSync(keyring)) {
      throw new P2pdmaError(`${keyring} not found: the kernel's signature could not be checked`, {
        code: 'ERR_RIG_APT',
        hint: 'sudo apt-get install debian-archive-keyring',
      })
    }
    const archive = await archiveAddress()
    for (const name of ['lists/partial', 'cache/archives/partial']) {
      mkdirSync(join(folder, name), { recursive: true })
    }
    writeFileSync(join(folder, 'status'), '')
    writeFileSync(
      join(folder, 'rig.sources'),
      `Types: deb\nURIs: ${archive}\nSuites: ${suites}\nComponents: main\n` +
        `Architectures: amd64\nSigned-By: ${keyring}\n`,
    )
    const configuration = join(folder, 'apt.conf')
    writeFileSync(configuration, (await acquireSettings()) + directories(folder))
    return new PrivateApt(folder, configuration)
  }

  /** Fetches the suite's index; apt checks its signature. */
  async update(): Promise<void> {
    await this.#get(this.#folder, 'update', '-q')
  }

  /** The names of all packages that begin with `prefix`. */
  async names(prefix: string): Promise<string[]> {
    const path = requireTool('apt-get').replace(/apt-get$/, 'apt-cache')
    const stdout = await runProgram(path, ['pkgnames', prefix], { env: this.#env })
    return stdout.toString().split('\n').filter(Boolean).sort()
  }

  /** What the index says of a package's candidate: `Version`, `Depends` and so on; {} if none. */
  async fields(name: string): Promise<Record<string, string>> {
    const path = requireTool('apt-get').replace(/apt-get$/, 'apt-cache')
    let stdout: Buffer
    try {
      stdout = await runProgram(path, ['show', '--no-all-versions', name], { env: this.#env })
    } catch {
      return {}
    }
    const found = stdout.toString().matchAll(/^([\w-]+): (.*)$/gm)
    return Object.fromEntries([...found].map(([, field = '', value = '']) => [field, value]))
  }

  /** Downloads packages and all that they depend on into `target`, as on an empty system. */
  async downloadWithDependencies(packages: string[], target: string): Promise<void> {
    mkdirSync(join(target, 'partial'), { recursive: true })
    const options = ['-y', '--download-only', '--no-install-recommends']
    const archives = ['-o', `Dir::Cache::archives=${target}`]
    await this.#get(target, 'install', '-qq', ...options, ...archives, ...packages)
  }

  /** Downloads packages into `target`; apt checks them against the signed index. */
  async download(packages: string[], target: string): Promise<void> {
    await this.#get(target, 'download', '-q', ...packages)
  }

  /** Forgets what was downloaded for the index. */
  clear(): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Runs apt-get with its messages on our stderr: stdout is the caller's. */
  async #get(cwd: string, ...args: string[]): Promise<void> {
    const child = spawn(requireTool('apt-get'), args, {
      cwd,
      env: this.#env,
      stdio: ['ignore', 2, 2],
    })
    const [code] = (await once(child, 'close')) as [number | null]
    if (code === 0) return
    throw new P2pdmaError(`apt-get ${args.join(' ')} failed (its messages are above)`, {
      code: 'ERR_RIG_APT',
      hint: 'is the Debian archive of this machine reachable? try `apt-get update`',
    })
  }
}

/** The Debian archive that this machine installs from, of its own configuration. */
async function archiveAddress(): Promise<string> {
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  const suites = [codename, 'stable', 'testing', 'unstable', 'sid']
  const stdout = await runProgram(requireTool('apt-get'), [
    'indextargets',
    '--no-release-info',
    '--format',
    '$(REPO_URI) $(RELEASE) $(COMPONENT)',
    'Created-By: Packages',
  ])
  for (const line of stdout.toString().split('\n')) {
    const [address, suite, component] = line.split(' ')
    // Archives of other vendors use the same suite names, but not this component.
    if (address !== undefined && suites.includes(suite) && component === 'main') return address
  }
  throw new P2pdmaError('no Debian archive in the apt configuration of this machine', {
    code: 'ERR_RIG_APT',
    hint: `a source for the suite ${codename ?? 'stable'}, component main, in /etc/apt/sources.list.d`,
  })
}

/** Proxies, timeouts and the like, without the host's hooks and folders. */
async function acquireSettings(): Promise<string> {
  const path = requireTool('apt-get').replace(/apt-get$/, 'apt-config')
  const settings = (await runProgram(path, ['dump'])).toString().split('\n')
  return settings.filter((line) => line.startsWith('Acquire::')).join('\n') + '\n'
}

function directories(folder: string): string {
  const settings = {
    'Dir::State': folder,
    'Dir::State::lists': join(folder, 'lists'),
    'Dir::State::status': join(folder, 'status'),
    'Dir::Cache': join(folder, 'cache'),
    'Dir::Log': folder,
    'Dir::Etc::sourcelist': join(folder, 'rig.sources'),
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::main': '/dev/null',
    'Dir::Etc::parts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    // Root's home is closed to the _apt user, who would download otherwise.
    'APT::Sandbox::User': 'root',
  }
  return Object.entries(settings)
    .map(([name, value]) => `${name} "${value}";\n`)
    .join('')
}
