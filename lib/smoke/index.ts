/** The smoke test. */
export { EFFECT_NAMES, EFFECT_SCENARIOS, EFFECTS, type Effect, parseEffects } from './effects.js'
export {
  FAULTS,
  LIMITS,
  PROFILES,
  withDefaults,
  type FaultName,
  type ProfileName,
  type SmokeOptions,
} from './options.js'
export { runSmoke, type SmokeContext, type SmokeOutput, type SmokeResult } from './run.js'
export type { ScenarioReport, SmokeReport } from './report.js'
export { type Dialect, DIALECTS, TapWriter } from './tap.js'
export { serve, type ServeEvent, type ServeOptions } from './verbs/serve.js'
