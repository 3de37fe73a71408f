/**
 * `npm run test:mutants`: takes one safeguard out at a time, and shows by which
 * assertion that is noticed. The control changes nothing; the harmless mutants
 * change what no test should mind.
 */
import t from 'tap'
import { Sandbox } from './sandbox.js'
import { controls, mutants } from './table.js'

t.setTimeout(1_200_000)

const list: string[] = []

for (const control of controls) {
  await t.test(`${control.name} survives`, async (t) => {
    for (const test of control.tests) {
      using sandbox = new Sandbox()
      sandbox.apply(control)
      const { failed, passed } = await sandbox.run(test)
      t.same(failed, [], `nothing fails in ${test}`)
      t.ok(passed > 0, 'and it ran')
    }
    list.push(`${control.name}: survives`)
  })
}

for (const mutant of mutants) {
  await t.test(`without ${mutant.name}`, async (t) => {
    using sandbox = new Sandbox()
    sandbox.apply(mutant)
    const { failed } = await sandbox.run(mutant.test)
    const killer = failed.find((name) => name.includes(mutant.killedBy))
    t.ok(killer, `killed by "${mutant.killedBy}"`, { failed })
    list.push(`without ${mutant.name}: killed by "${killer ?? '-'}" (${mutant.test})`)
  })
}

for (const line of list) t.comment(line)
