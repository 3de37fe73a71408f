/** What transfers run on: one device that copies, or two of which one sends what the other gets. */
import type { Importer } from '../move-notify/importer/importer.js'
import type { DeviceAxes } from './axes.js'
import type { FaultName, SmokeOptions } from './options.js'
import type { Form, Lane } from './lanes.js'
import type { Layout } from './layout.js'
import type { Probe } from './probe.js'
import type { Check, Scenario } from './scenario.js'
import type { Tally } from './tally.js'

/** A device's side of one scenario. */
export interface Port {
  importer: Importer
  probe: Probe
}

/** What one scenario has of the devices. */
export interface Station {
  /** The device that reads, and the one that writes: one and the same, perhaps. */
  readonly source: Port
  readonly target: Port
  /** Opens one more channel, or pair of them. */
  lane(form: Form, tally: Tally): Lane
  /** Queue pairs connected anew, and devices reset, since it was opened. */
  readonly resets: number
  /** Breaks the next operation of that lane, or the next unmap, on purpose. */
  inject(kind: FaultName, lane: Lane, layout: Layout, restBlocks: number): void
  close(): Promise<void>
}

/** What can only be said at the end. */
export interface Conclusion {
  check: Check
  /** DMA faults that nobody had made on purpose; null where nobody judges. */
  dmaFaults: number | null
}

export interface Plant {
  /** What is real about it, for the first lines. */
  readonly facts: readonly string[]
  /** By what its devices' memory is mapped, where an IOMMU stands behind them. */
  readonly iommu?: 'type1' | 'iommufd'
  /** How its devices take each exporter's memory, where they are to be asked. */
  readonly axes?: readonly DeviceAxes[]
  readonly scenarios: readonly Scenario[]
  /** Smaller buffers are done before a move begins: whether it met work is not judged there. */
  readonly judgedSize: number
  /** Groups of blocks under way at most, on so many pairs of buffers. */
  window(pairs: number): number
  /** How long a move waits for work in flight on its buffer at most, ms. */
  readonly aimMs: number
  /** What stands before each block on its way. */
  readonly header: Uint8Array
  /** Bytes that the devices have moved so far, by their own count. */
  readonly bytes: number
  /** Faults that they have made on purpose so far, by their own count. */
  readonly injected: number
  layOut(size: number): Layout
  /** Throws ERR_OUT_OF_RANGE where what is asked for does not fit. */
  check(options: SmokeOptions, played: readonly Scenario[]): void
  open(): Station
  /** Closes the devices, and says what they leave behind; null where there is nothing to say. */
  conclude(): Promise<Conclusion | null>
  /** Whether `conclude()` has something to say. */
  readonly concludes: boolean
  close(): Promise<void>
}
