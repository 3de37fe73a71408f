/** Exporters by the name that `--from` and `--to` spell, of this package and of others. */
import type { Exporter } from '../move-notify/exporter/backing.js'
import { type Registered, Registry } from '../registry.js'

/** What there is, or could be, on this machine. */
export interface ExporterStatus {
  /** As `exporterByName` takes it. */
  readonly placement: string
  readonly kind: 'kernel' | 'embedded'
  readonly available: boolean
  /** What would make it available. */
  readonly hint?: string
}

/** A family of exporters, for `registerExporter()`. */
export interface ExporterFamily extends Registered {
  /** How its names are spelt, for messages: `heap:NAME`. */
  readonly spelling: string
  /**
   * The exporter: `parameter` is what follows the colon, null where there is none. Null for
   * a parameter that names none of its own. Allocates nothing.
   */
  open(parameter: string | null): Exporter | null
  /** What of it this machine has, or could have. Allocates nothing. Left out: not listed. */
  list?(): readonly ExporterStatus[]
}

export const exporters = new Registry<ExporterFamily>('exporter', {
  spelling: 'string',
  open: 'function',
})

/**
 * Makes a family of exporters known to `exporterByName()`, to `--from` and to `--to`, under
 * its name. ERR_INTERFACE_VERSION where it was written for another version of the interface;
 * ERR_NAME_TAKEN for a name that is in use.
 */
export function registerExporter(exporter: ExporterFamily): void {
  exporters.add(exporter)
}
