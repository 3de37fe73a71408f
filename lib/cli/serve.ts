/** `p2pdma serve`: the other host of `p2pdma smoke --engine verbs --peer`. */
import type { P2pdmaError } from '../errors.js'
import { LIMITS, PORT } from '../smoke/options.js'
import type { ServeEvent } from '../smoke/verbs/serve.js'
import { parseOptions, UsageError, wholeNumber, wholeNumberOrNull } from './args.js'
import { Interrupt } from './ending.js'
import { Output } from './output.js'

export const summary = "be the other host of 'smoke --engine verbs --peer'"

export const usage = `[OPTIONS]

  --device NAME      the RDMA device (the first with an active port)
  --port-num N       which of its ports (the first that is active; or in the name, as
                     mlx5_0/2)
  --gid-index N      which entry of the port's GID table (RoCE v2 before v1, routable
                     before link-local, IPv4 before IPv6)
  --host ADDRESS     listen for peers there (on every address of this host)
  --port N           and on this TCP port; 0: any that is free (${PORT})
  --from EXPORTER    where the buffers are made that the peers use (memfd)
  --to EXPORTER,...  where they move, in turn, and back to --from (memfd)
  --size BYTES       of each, a multiple of ${LIMITS.size.multipleOf}, ${LIMITS.size.min} at least (524288)
  --every MS         from one move of a buffer to its next (20)
  --still            do not move them
  --once             end when the run that has used the buffers has ended, all its
                     connections; one that only looks does not count

Whoever can connect may read and write these buffers, and nothing else: listen
where you trust everybody. On stdout there is a line of JSON for each event,
the first when it is ready: { "event": "ready", "device", "portNum", "gidIndex",
"host", "port", "size" }.

Exit codes: 0 it has served (--once), 1 it failed, 2 this usage, 129 to 143 ended by
a signal, 141 nobody reads the output.`

const options = {
  device: { type: 'string' },
  'port-num': { type: 'string' },
  'gid-index': { type: 'string' },
  host: { type: 'string' },
  port: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  size: { type: 'string' },
  every: { type: 'string' },
  still: { type: 'boolean' },
  once: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const

export async function run(argv: string[]): Promise<number> {
  const values = parseOptions(argv, options)
  if (values.help === true) {
    process.stdout.write(`usage: p2pdma serve ${usage}\n`)
    return 0
  }
  const { device = '', host = null, port, from = 'memfd', to = 'memfd', size, every } = values
  const { min, max, multipleOf } = LIMITS.size
  const bytes = size === undefined ? 1 << 19 : wholeNumber('size', size, min, max)
  if (bytes % multipleOf !== 0) {
    throw new UsageError(`--size must be a multiple of ${multipleOf}, not '${bytes}'`)
  }
  const interrupt = new Interrupt()
  const output = new Output('serve', (code) => interrupt.end(code))
  const tell = (event: ServeEvent) => output.write(process.stdout, `${JSON.stringify(event)}\n`)
  const progress = (line: string) => {
    // One line, on a terminal only.
    if (process.stderr.isTTY) output.write(process.stderr, `\r\x1b[K${line}`)
  }
  try {
    const settings = {
      ...{ device, host, from, to: to.split(','), size: bytes, once: values.once === true },
      port: port === undefined ? PORT : wholeNumber('port', port, 0, 65535),
      portNum: wholeNumberOrNull('port-num', values['port-num'], LIMITS.portNum),
      gidIndex: wholeNumberOrNull('gid-index', values['gid-index'], LIMITS.gidIndex),
      everyMs: values.still === true ? Infinity : wholeNumber('every', every ?? '20', 1, 60_000),
    }
    const { serve } = await import('../smoke/index.js')
    await serve(settings, { tell, progress }, interrupt.signal)
    progress('')
    await output.flushed()
    return interrupt.exitCode ?? 0
  } catch (error) {
    const { code: kind, message } = error as P2pdmaError
    if (kind !== 'ERR_INVALID_ARG_VALUE') throw error
    throw new UsageError(message)
  } finally {
    interrupt.stop()
  }
}
