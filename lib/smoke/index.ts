/** The smoke test. */
export { FAULTS, LIMITS, withDefaults, type FaultName, type SmokeOptions } from './options.js'
export { runSmoke, type SmokeOutput, type SmokeResult } from './run.js'
export type { ScenarioReport, SmokeReport } from './report.js'
export { TapWriter } from './tap.js'
export { PORT, serve, type ServeEvent, type ServeOptions } from './verbs/serve.js'
