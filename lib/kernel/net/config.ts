/**
 * What an interface loses with its link: routes, and IPv6's addresses (net/ipv4/fib_frontend.c,
 * fib_disable_ip(); net/ipv6/addrconf.c, addrconf_ifdown()). iproute2 keeps and restores it.
 */
import { execFileSync } from 'node:child_process'
import { writeSync } from 'node:fs'
import { P2pdmaError } from '../../errors.js'
import { Memfd } from '../memfd.js'
import { programEnvironment } from '../programs.js'

/** As `ip ... save` has written it, in base64: addresses, and the routes of all tables. */
export interface NetConfig {
  addresses: string
  routes: string
  routes6: string
}

/** Emulated on a busy machine a program may take seconds to be loaded. */
const IP_MS = 30_000

/** Not the routes to its own addresses, which the kernel makes by itself. */
const PARTS: { part: keyof NetConfig; save: (name: string) => string[]; restore: string[] }[] = [
  {
    part: 'addresses',
    save: (name) => ['address', 'save', 'dev', name],
    restore: ['address', 'restore'],
  },
  {
    part: 'routes',
    save: (name) => ['-4', 'route', 'save', 'table', 'all', 'type', 'unicast', 'dev', name],
    restore: ['-4', 'route', 'restore'],
  },
  {
    part: 'routes6',
    save: (name) => ['-6', 'route', 'save', 'table', 'all', 'type', 'unicast', 'dev', name],
    restore: ['-6', 'route', 'restore'],
  },
]

/** Changes nothing. ERR_UNSUPPORTED where there is no `ip` to ask. */
export function saveNetConfig(name: string): NetConfig {
  const config = { addresses: '', routes: '', routes6: '' }
  for (const { part, save } of PARTS) config[part] = ip(save(name)).toString('base64')
  return config
}

/** What is there already stays as it is. */
export function restoreNetConfig(config: NetConfig): void {
  for (const { part, restore } of PARTS) {
    if (config[part] !== '') ip(restore, Buffer.from(config[part], 'base64'))
  }
}

export function isNetConfig(value: unknown): value is NetConfig {
  if (typeof value !== 'object' || value === null) return false
  return PARTS.every(({ part }) => typeof (value as NetConfig)[part] === 'string')
}

function ip(args: readonly string[], input = Buffer.alloc(0)): Buffer {
  // Not a pipe: `ip route restore` reads it several times.
  using file = Memfd.create(0)
  writeSync(file.fd, input, 0, input.length, 0)
  try {
    return execFileSync('ip', args, {
      env: programEnvironment(),
      stdio: [file.fd, 'pipe', 'pipe'],
      timeout: IP_MS,
      killSignal: 'SIGKILL',
    })
  } catch (cause) {
    const { code, stderr } = cause as { code?: string; stderr?: Buffer }
    const said = stderr?.toString().trim() ?? ''
    throw new P2pdmaError(`\`ip ${args.join(' ')}\` failed${said === '' ? '' : `: ${said}`}`, {
      code: code === 'ENOENT' ? 'ERR_UNSUPPORTED' : 'ERR_NET_CONFIG',
      hint: code === 'ENOENT' ? 'install iproute2: it puts addresses and routes back' : undefined,
      cause,
    })
  }
}
