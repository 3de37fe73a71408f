/**
 * What an interface loses with its link: routes, and IPv6's addresses (net/ipv4/fib_frontend.c,
 * fib_disable_ip(); net/ipv6/addrconf.c, addrconf_ifdown()). iproute2 keeps and restores it.
 */
import { execFileSync } from 'node:child_process'
import { P2pdmaError } from '../../errors.js'
import { programEnvironment } from '../programs.js'

/** As `ip ... save` has written it, in base64: addresses, and the routes of all tables. */
export interface NetConfig {
  addresses: string
  routes: string
  routes6: string
}

const IP_MS = 10_000

const PARTS: { part: keyof NetConfig; save: (name: string) => string[]; restore: string[] }[] = [
  {
    part: 'addresses',
    save: (name) => ['address', 'save', 'dev', name],
    restore: ['address', 'restore'],
  },
  {
    part: 'routes',
    save: (name) => ['-4', 'route', 'save', 'table', 'all', 'dev', name],
    restore: ['-4', 'route', 'restore'],
  },
  {
    part: 'routes6',
    save: (name) => ['-6', 'route', 'save', 'table', 'all', 'dev', name],
    restore: ['-6', 'route', 'restore'],
  },
]

/** Rejects nothing, changes nothing. ERR_UNSUPPORTED where there is no `ip` to ask. */
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

function ip(args: readonly string[], input?: Buffer): Buffer {
  try {
    return execFileSync('ip', args, {
      env: programEnvironment(),
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: IP_MS,
      killSignal: 'SIGKILL',
      ...(input !== undefined && { input }),
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
