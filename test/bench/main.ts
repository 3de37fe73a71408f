/**
 * `npm run bench [-- --suite NAME] [-- --json FILE|-]`: a table on stdout, and
 * one JSON object if asked for (with `-` it has stdout, and the table goes to
 * stderr). `--beside FOLDER`: the ratios to another checkout, built in FOLDER,
 * as JSON on stdout unless there is a file for it, a line each on stderr; the
 * exit code is 1 where one is slower. `--quick` only shows that it runs: its
 * figures mean nothing.
 */
import { cpus, release } from 'node:os'
import { parseArgs } from 'node:util'
import { printError } from '../../lib/cli/args.js'
import { P2pdmaError } from '../../lib/errors.js'
import { ReportFile } from '../../lib/cli/report-file.js'
import { beside, checkBeside, LIMIT, slower } from './beside/beside.js'
import { importTime } from './import-time.js'
import type { Ratio, Result } from './measure.js'
import { moveSuite } from './moves.js'
import { pauseSuite } from './pause.js'
import { postSuite } from './post.js'
import { usesSuite } from './uses.js'
import { verbsSuite } from './verbs/suite.js'
import { vfioSuite } from './vfio/suite.js'

const USAGE =
  'usage: npm run bench -- [--suite core|post|moves|pause|import|vfio|verbs] [--beside FOLDER] ' +
  '[--json FILE|-] [--quick]'

/** What they are to be: at most, or at least. */
const limits: Readonly<Record<string, string>> = {
  post_batch32_vs_cpp: '2',
  move_100k_vs_10: '1.2',
  uses_1000_channels_vs_1: '1.2',
  slice_p999_ms: '2',
  bytes_per_attachment: '256',
  pause_64k_heart_cpu: '100',
  frames_batch32_vs_c: '>= 0.7',
  pause_64k_bar_to_system: '1.5',
  pause_64k_system_to_bar: '1.5',
  pause_16m_bar_to_system: '1.5',
  pause_16m_system_to_bar: '1.5',
  write_bw_64k_vs_perftest: '>= 0.95',
  send_lat_event_vs_perftest: '1.2',
  send_lat_event_loop_vs_perftest: '1.2',
  send_lat_poll_vs_perftest: '1.1',
  msg_rate_64b_batch32_vs_perftest: '>= 0.8',
  move_1000_regions_vs_naive: '0.05',
  bystander_bw_vs_control: '>= 0.95',
}

const suites = ['core', 'post', 'moves', 'pause', 'import', 'vfio', 'verbs'] as const

interface Options {
  suite: (typeof suites)[number]
  /** The other checkout's folder. */
  folder: string | null
  json: string | undefined
  quick: boolean
}

function options(): Options {
  try {
    // npm passes on a second `--`, where two options are written with one each.
    const args = process.argv.slice(2).filter((word) => word !== '--')
    const { values } = parseArgs({
      args,
      options: {
        suite: { type: 'string', default: 'core' },
        beside: { type: 'string' },
        json: { type: 'string' },
        quick: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h' },
      },
    })
    if (values.help === true) {
      process.stdout.write(`${USAGE}\n`)
      process.exit(0)
    }
    const suite = suites.find((name) => name === values.suite)
    if (suite === undefined) throw new Error(`no suite is named '${values.suite}'`)
    const folder = values.beside === undefined ? null : checkBeside(values.beside, suite)
    const json = values.json ?? (folder === null ? undefined : '-')
    return { suite, folder, json, quick: values.quick }
  } catch (error) {
    if (error instanceof P2pdmaError) printError(error)
    else process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.stderr.write(`${USAGE}\n`)
    process.exit(2)
  }
}

/** Before minutes of measuring, so that a path that cannot be written to is known at once. */
function reportFile(path: string | undefined): ReportFile | null {
  if (path === undefined || path === '-') return null
  try {
    return new ReportFile(path)
  } catch (error) {
    printError(error)
    process.exit(1)
  }
}

function number(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value.toPrecision(3)
}

function table(results: Result[], ratios: Ratio[]): string {
  const rows = [['name', 'median', 'quartiles', 'unit', 'limit', 'of']]
  for (const each of [...ratios, ...results]) {
    const of = Object.entries(each.parameters).map(([key, value]) => `${key} ${value}`)
    if ('sides' in each) {
      const { sides, sideUnit } = each as Ratio
      of.unshift(`${number(sides[0])} / ${number(sides[1])} ${sideUnit}`)
    }
    rows.push([
      each.name,
      number(each.median),
      each.spread.map(number).join(' .. '),
      each.unit,
      folder === null ? (limits[each.name] ?? '') : `${LIMIT}`,
      of.join(', '),
    ])
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const lines = rows.map((row) =>
    row.map((cell, column) => cell.padEnd(widths[column]!)).join('  '),
  )
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n`
}

const { suite, folder, json, quick } = options()
const file = reportFile(json)
const wants = (name: string) => folder === null && (suite === 'core' || suite === name)
const progress = (text: string) => {
  if (process.stderr.isTTY) process.stderr.write(`${text}\n`)
}

const results: Result[] = []
const ratios: Ratio[] = []
if (wants('post')) {
  progress('post: the batch form against C++')
  ratios.push(...(await postSuite(quick)))
}
if (wants('moves')) {
  progress('moves: one of many, many at once')
  const moves = await moveSuite(quick)
  results.push(...moves.results)
  ratios.push(...moves.ratios)
  progress('uses: a move beside channels that do not use what moves')
  ratios.push(...(await usesSuite(quick)))
}
if (wants('pause')) {
  progress('pause: a move that stops a channel, against C++')
  const pauses = await pauseSuite(quick)
  results.push(...pauses.results)
  ratios.push(...pauses.ratios)
}
if (wants('import')) {
  progress('import')
  results.push(importTime(quick))
}
// Not of the core: they need devices.
try {
  if (folder !== null) {
    ratios.push(...(await beside(folder, suite, quick, progress)))
  } else if (suite === 'vfio') {
    progress('vfio: frames and pauses against C')
    ratios.push(...(await vfioSuite(quick)))
  } else if (suite === 'verbs') {
    ratios.push(...(await verbsSuite(quick, progress)))
  }
} catch (error) {
  printError(error)
  process.exit(1)
}

const text = table(results, ratios)
if (json === '-') process.stderr.write(text)
else process.stdout.write(text)
if (json !== undefined) {
  const environment = {
    node: process.version,
    kernel: release(),
    arch: process.arch,
    cpus: cpus().length,
    cpu: cpus()[0]?.model ?? '',
  }
  const object = {
    suite,
    ...(folder !== null && { beside: folder }),
    environment,
    results: [...results, ...ratios],
    ratios: Object.fromEntries(ratios.map(({ name, median }) => [name, median])),
  }
  const line = `${JSON.stringify(object, null, 2)}\n`
  if (file === null) process.stdout.write(line)
  else await file.write(line)
}
if (folder !== null) {
  for (const { name, spread } of slower(ratios)) {
    process.exitCode = 1
    const least = number(spread[0])
    process.stderr.write(`${name}: the lower quartile of the ratio, ${least}, is above ${LIMIT}\n`)
  }
}
