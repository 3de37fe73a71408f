/** The conformance suite: on the toys, and on what of ours runs on any host. */
import t from 'tap'
import { type ConformanceCheck, engineChecks, exporterChecks } from '../../lib/conformance/index.js'
import { exporterByName, memfd, openEngine, slab } from '../../lib/index.js'
import './toy-engine/index.js'
import './toy-exporter/index.js'

const run = (name: string, checks: readonly ConformanceCheck[]) =>
  t.test(name, async (t) => {
    t.setTimeout(600_000)
    t.ok(checks.length > 7, `${checks.length} checks`)
    for (const check of checks) {
      await t.test(check.name, (t) => {
        t.setTimeout(600_000)
        return check.run()
      })
    }
  })

for (const name of ['toy:one', 'software']) {
  void run(
    `the engine ${name}`,
    engineChecks(async () => {
      const engine = await openEngine(name)
      return { engine, close: () => engine.close() }
    }),
  )
}

void run('the exporter toy-memory', exporterChecks(exporterByName('toy-memory')))
void run('the exporter memfd', exporterChecks(memfd()))
void run('the exporter memfd, in slabs', exporterChecks(slab(memfd())))
