/** The IOMMU as a judge: the DMA faults of our devices, by the kernel's log. */
import type { P2pdmaError } from '../../errors.js'
import { type DmaFault, KernelLog, parseDmarFault } from '../../kernel/index.js'

export class FaultWatch {
  /** Null where the log cannot be read. */
  readonly #log: KernelLog | null
  /** Why not. */
  readonly missing: string | null
  readonly #devices: readonly string[]
  readonly #expected: { device: string; start: number; end: number }[] = []
  readonly #unexpected: DmaFault[] = []

  /** From now on; of these devices, by their addresses. */
  constructor(devices: readonly string[]) {
    this.#devices = devices
    let log: KernelLog | null = null
    let missing: string | null = null
    try {
      log = KernelLog.open()
    } catch (error) {
      const { message, hint } = error as P2pdmaError
      missing = hint === undefined ? message : `${message}; ${hint}`
    }
    this.#log = log
    this.missing = missing
  }

  /** Faults of `device` in these addresses, the end excluded, are made on purpose from now on. */
  expect(device: string, start: number, end: number): void {
    this.#expected.push({ device, start, end })
  }

  /** The faults since the last call. */
  look(): DmaFault[] {
    const faults: DmaFault[] = []
    if (this.#log === null || this.#log.closed) return faults
    for (let records = this.#log.read(); records.length > 0;) {
      for (const { text } of records) {
        const fault = parseDmarFault(text)
        if (fault !== null && this.#devices.includes(fault.device)) faults.push(fault)
      }
      records = this.#log.read()
    }
    this.#unexpected.push(...faults.filter((fault) => !this.#isExpected(fault)))
    return faults
  }

  #isExpected({ device, iova }: DmaFault): boolean {
    return this.#expected.some(
      (each) => each.device === device && iova >= each.start && iova < each.end,
    )
  }

  /** So far, those made on purpose excluded; null where the log cannot be read. */
  get unexpected(): readonly DmaFault[] | null {
    this.look()
    return this.#log === null ? null : this.#unexpected
  }

  /** Idempotent. */
  close(): void {
    this.#log?.close()
  }
}
