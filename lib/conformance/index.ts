/**
 * `p2pdma/conformance`: what the interfaces promise, as checks that any test runner can run.
 * Our own engines and exporters pass them.
 *
 * ```ts
 * import { engineChecks } from 'p2pdma/conformance'
 * import test from 'node:test'
 * for (const { name, run } of engineChecks(async () => onBench(await openEngine('toy')))) test(name, run)
 * ```
 */
export type { ConformanceCheck } from './check.js'
export { engineChecks } from './engine.js'
export type { EngineOnBench, OpenEngine } from './engine-bench.js'
export { exporterChecks } from './exporter.js'
export { INTERFACE_VERSION } from '../registry.js'
