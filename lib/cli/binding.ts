/** What `p2pdma bind` and `p2pdma unbind` have in common. */
import type { P2pdmaError } from '../errors.js'
import type { BindResult } from '../kernel/pci/index.js'
import { parseWords, UsageError } from './args.js'
import { onSignals, putBackAtExit, putBackWhatIsLeft } from './ending.js'

const options = { help: { type: 'boolean', short: 'h' } } as const

export async function runBinding(
  argv: string[],
  help: string,
  act: (addresses: readonly string[]) => Promise<BindResult[]>,
): Promise<number> {
  const { values, positionals: words } = parseWords(argv, options)
  if (values.help === true) {
    process.stdout.write(help)
    return 0
  }
  if (words.length === 0) throw new UsageError('a device is missing')
  let results: BindResult[]
  await putBackWhatIsLeft()
  const ends = [await putBackAtExit(), onSignals((code) => process.exit(code))]
  try {
    results = await act(words)
  } catch (error) {
    const { code, message } = error as P2pdmaError
    if (code === 'ERR_INVALID_ARG_VALUE') throw new UsageError(message)
    throw error
  } finally {
    for (const end of ends) end()
  }
  for (const { address, from, to } of results) {
    const name = (driver: string | null) => driver ?? 'no driver'
    const what = from === to ? `${name(to)} already` : `${name(from)} -> ${name(to)}`
    process.stdout.write(`${address}: ${what}\n`)
  }
  return 0
}
