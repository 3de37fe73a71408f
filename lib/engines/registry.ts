/** Engines by the name that `--engine` spells, of this package and of others. */
import type { Engine } from '../move-notify/importer/engine.js'
import type { Importer, ImporterOptions } from '../move-notify/importer/importer.js'
import { type Registered, Registry } from '../registry.js'

/** What `openEngine()` gives. */
export interface OpenedEngine extends Engine, AsyncDisposable {
  /** This device's side of the sharing; closed with the engine. */
  importer(options?: ImporterOptions): Importer
  /** Closes its importers and channels first. Idempotent. */
  close(): Promise<void>
}

/** A family of engines, for `registerEngine()`. */
export interface EngineFamily extends Registered {
  /** How its names are spelt, for messages: `vfio:ADDRESS`. */
  readonly spelling: string
  /** Whether `open` takes options. Default false. */
  readonly takesOptions?: boolean
  /**
   * Opens a device: `parameter` is what follows the colon, null where there is none.
   * Null for a parameter that names none of its own; rejects with a typed error where
   * the device cannot be opened.
   */
  open(parameter: string | null, options: object): Promise<OpenedEngine | null>
}

export const engines = new Registry<EngineFamily>('engine', {
  spelling: 'string',
  open: 'function',
})

/**
 * Makes a family of engines known to `openEngine()` and to `--engine`, under its name.
 * ERR_INTERFACE_VERSION where it was written for another version of the interface;
 * ERR_NAME_TAKEN for a name that is in use.
 */
export function registerEngine(engine: EngineFamily): void {
  engines.add(engine)
}
