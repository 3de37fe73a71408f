/** The other side: the same in C, test/bench/e1000e. */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Devices } from './devices.js'

const root = new URL('../../../../', import.meta.url)
const program = fileURLToPath(new URL('build/bench/e1000e-peer', root))

/** Builds the program, where it is missing or older than its sources. */
export function buildPeer(): void {
  const script = fileURLToPath(new URL('scripts/build-peer.mjs', root))
  execFileSync(process.execPath, [script], { stdio: ['ignore', 'ignore', 'inherit'] })
}

export function runPeer(mode: string, devices: Devices, args: Record<string, unknown>): unknown {
  const options = Object.entries(args).map(([name, value]) => `--${name}=${String(value)}`)
  const nics = `--nics=${devices.sender},${devices.receiver}`
  const stdout = execFileSync(program, [mode, nics, ...options], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return JSON.parse(stdout)
}
