/** Opens what a run needs: its exporters, and what the scenarios run on. */
import { P2pdmaError } from '../errors.js'
import { type CheckedExporter, tryExporter, findExporter } from './exporter-check.js'
import { checkEngineOptions, openPlant } from './open-plant.js'
import { rotation, type SmokeOptions } from './options.js'
import type { Placement } from './pair.js'
import type { Plant } from './plant.js'
import type { Watchdog } from './watchdog.js'

export interface Opened {
  /** Those that buffers pass through, in turn. */
  readonly checked: readonly CheckedExporter[]
  /** Null where one of them is not to be found. */
  readonly system: Placement | null
  /** Null where it could not be opened. To be closed, whatever `error` says. */
  readonly plant: Plant | null
  /** Why there is nothing to be played; null where there is. */
  readonly error: unknown
}

/** Opens nothing. Throws ERR_INVALID_ARG_VALUE for what is spelt wrong, and does not go together. */
export function findExporters(options: SmokeOptions): CheckedExporter[] {
  checkEngineOptions(options)
  return rotation(options).map(findExporter)
}

/** Rejects with ERR_INVALID_ARG_VALUE for what is spelt wrong; whatever else is wrong is `error`. */
export async function openAll(
  options: SmokeOptions,
  found: readonly CheckedExporter[],
  watchdog: Watchdog,
): Promise<Opened> {
  const system = placementOf(options, found)
  let plant: Plant | null = null
  let checked = found
  let error: unknown = null
  try {
    if (system !== null) {
      plant = await watchdog.race('opening the devices', openPlant(options, system))
    }
  } catch (thrown) {
    if ((thrown as P2pdmaError).code === 'ERR_INVALID_ARG_VALUE') throw thrown
    error = thrown
  }
  try {
    // One after the other: some are of one device.
    if (!watchdog.isTripped) {
      checked = await watchdog.race('opening the exporters', inTurn(found, tryExporter))
    }
  } catch (thrown) {
    error ??= thrown
  }
  const missing = checked.find((each) => each.error !== null)?.error ?? null
  error ??= missing ?? unregistered(plant, checked)
  return { checked, system, plant, error }
}

function placementOf(options: SmokeOptions, found: readonly CheckedExporter[]): Placement | null {
  const to = found.flatMap(({ exporter }) => exporter ?? [])
  const from = found.find(({ name }) => name === options.from)?.exporter ?? null
  return from === null || to.length < found.length ? null : { from, to }
}

/** What a device cannot be given at all. */
function unregistered(
  plant: Plant | null,
  checked: readonly CheckedExporter[],
): P2pdmaError | null {
  const used = checked.map(({ exporter }) => exporter?.placement)
  const none = plant?.axes?.find(
    ({ registration, exporter }) => registration === 'none' && used.includes(exporter),
  )
  if (none === undefined) return null
  const { device, exporter, reason } = none
  return new P2pdmaError(`${device} does not register memory of ${exporter}`, {
    code: 'ERR_UNSUPPORTED',
    ...(reason !== null && { hint: reason }),
  })
}

async function inTurn<T, R>(items: readonly T[], each: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  for (const item of items) results.push(await each(item))
  return results
}
