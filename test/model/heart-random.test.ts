/** Larger cases at random: `MODEL_SEED` repeats a run. */
import fc from 'fast-check'
import t from 'tap'
import { report, sample } from './explore.js'
import { heart } from './heart-help.js'
import { heartCases } from './heart-random.js'

t.setTimeout(1_800_000)

const seed = Number(process.env['MODEL_SEED'] ?? Date.now() % 1e9)
const runs = Number(process.env['MODEL_RUNS'] ?? 150)

for (const faulty of [false, true]) {
  t.test(faulty ? 'with faults' : 'without faults', async (t) => {
    let executions = 0
    const cases = heartCases.filter((each) => each.failures === faulty)
    const property = fc.property(cases, fc.nat(), (options, schedule) => {
      const result = sample(heart(options, { maxSteps: 20_000 }), schedule, 20)
      executions += result.executions
      if (result.failure !== null) throw new Error(report(result.failure))
    })
    const checked = fc.check(property, { seed, numRuns: runs })
    t.comment(`MODEL_SEED=${seed}: ${executions} executions of ${checked.numRuns} cases`)
    const { errorInstance } = checked
    if (errorInstance instanceof Error) t.comment(errorInstance.message)
    t.notOk(checked.failed, fc.defaultReportMessage(checked) ?? 'every case')
  })
}
