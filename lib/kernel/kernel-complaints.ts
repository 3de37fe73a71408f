/**
 * What the kernel says when it has found itself, or a driver, doing wrong, short
 * of dying of it. What a device did (a DMA fault, a PCIe error) is no complaint,
 * nor is memory that was asked for and not there.
 */
import { brand } from '../brand.js'
import { typeError } from '../errors.js'
import type { KernelLog } from './kmsg.js'

/** Where warnings begin (include/asm-generic/bug.h, CUT_HERE) and end (kernel/panic.c, print_oops_end_marker(); lib/ubsan.c). */
const CUT_HERE = /^-{12}\[ cut here \]-{12}$/
const END_TRACE = /^---\[ end trace(?: [0-9a-f]+)? \]---$/

/** Of reports that frame themselves: lockdep, KASAN, KFENCE, slub. */
const FRAME = /^={20,}$/

/** What else ends a report that no frame does: arch/x86/kernel/dumpstack.c. */
const END_OF_STACK = /^ *<\/TASK>$/

/** As `dmesg` and a console begin a line, the priority (`printk -r`) before it. */
const PREFIX = /^(?:<\d+>)?\[ *(\d+\.\d+)\](?:\[ *[CT]\d+\])? ?/

/** A driver or a device that speaks: `watchdog: `, `infiniband rxe0: `. */
const SPEAKER = String.raw`(?:[\w.-]+(?: [\w.:-]+)?: )?`

/** How a complaint begins. Sources are the kernel's files, `kernel/panic.c` and so on. */
const BEGINNINGS: readonly RegExp[] = [
  // __warn(), kernel/panic.c; lockdep, suspicious RCU usage, kernel/locking/lockdep.c.
  /^WARNING: /,
  // sched/core.c (scheduling while atomic), kasan/report.c, kfence/report.c, watchdog.c (soft
  // lockup), workqueue.c, mm/ (Bad page state, Bad rss-counter), core/restrack.c (a leak).
  new RegExp(`^${SPEAKER}BUG: `),
  // slab_bug(), mm/slub.c.
  /^BUG [\w:.-]+ \([^)]*\): /,
  // bug.c, report_bug(); arch/x86/kernel/traps.c, dumpstack.c, mm/fault.c; panic.c.
  /^kernel BUG at /,
  /^(?:Oops|general protection fault|divide error|invalid opcode|stack segment|double fault)\b.*: /,
  /^(?:Unable to handle kernel |Internal error: )/,
  /^Kernel panic - not syncing: /,
  // check_hung_task(), kernel/hung_task.c; register_lock_class(), lockdep.c.
  /^INFO: (?:task .* blocked .*for more than|trying to register non-static key)/,
  // kernel/rcu/tree_stall.h, tree_exp.h, update.c (tasks).
  /^rcu(?:_\w+)?: (?:INFO: |.*kthread (?:starved|timer wakeup))|^INFO: rcu_\w+ .*stall/,
  // kernel/watchdog.c, watchdog_hardlockup_check().
  new RegExp(`^${SPEAKER}Watchdog detected hard LOCKUP`, 'i'),
  // lib/ubsan.c, lib/refcount.c, lib/list_debug.c, kernel/dma/debug.c: also where the frame of a
  // warning around them was lost.
  /^UBSAN: /,
  /^refcount_t: /,
  /^list_(?:add|del) corruption/,
  new RegExp(`^${SPEAKER}DMA-API: `),
  // netdev_wait_allrefs_any(), net/core/dev.c: a reference that somebody keeps.
  /^unregister_netdevice: waiting for /,
  // mm/kmemleak.c.
  /^kmemleak: .* new suspected memory leak/,
]

/** It only says more of a report that has begun. */
const CONTINUES =
  /^(?:Oops|general protection fault|invalid opcode|kernel BUG at|Kernel panic|rcu: .* kthread )/

/** The line of a framed report that says where; the code's own text is before it. */
const NAMES = /^(?:WARNING: |UBSAN: |kernel BUG at )/

/** Not the bugs that it speaks of. `DMA-API: preallocated ...`, kernel/dma/debug.c, dma_debug_init(). */
const HARMLESS = /DMA-API: (?:preallocated|debugging (?:enabled|disabled))/

/**
 * Whether a line of the kernel's log complains: the line without the time
 * before it, else null. Of a report of many lines it is one, or two.
 */
export function complaintIn(line: string): string | null {
  if (typeof line !== 'string') throw typeError('line', 'a string', line)
  const text = line.trimEnd().replace(PREFIX, '')
  if (HARMLESS.test(text)) return null
  return BEGINNINGS.some((pattern) => pattern.test(text)) ? text : null
}

export interface KernelComplaint {
  /** What it is about, one line: `WARNING: ... at ...`, with the text that the code gave. */
  summary: string
  /** All lines, without times; where it is long, the first 200. */
  lines: readonly string[]
}

const MOST_LINES = 200
/** Of a report without an end: what follows that soon after is taken for its stack. */
const MOST_LINES_UNFRAMED = 60
const STACK_US = 500_000

interface Report {
  lines: string[]
  /** Since `cut here`: ended by `end trace`, and by nothing that it says. */
  isCut: boolean
  /** Index of the line that names it; -1 before it came. */
  named: number
  /** Of the last line; null where it is not known. */
  timeUs: number | null
}

/**
 * Sorts the lines of a log into complaints, in their order. What two CPUs say at
 * once is mixed in the log, and so here.
 */
export class KernelComplaints {
  static {
    brand(this, (value) => #found in value)
  }

  readonly #found: KernelComplaint[] = []
  #report: Report | null = null

  /** The complaints of a whole log, as from `dmesg` or a console. */
  static in(log: string): KernelComplaint[] {
    if (typeof log !== 'string') throw typeError('log', 'a string', log)
    const complaints = new KernelComplaints()
    for (const line of log.split(/\r?\n/)) complaints.add(line)
    return complaints.take()
  }

  /**
   * One line, or the text of one record of /dev/kmsg, oldest first. `timeUs`: when, in
   * microseconds of the kernel's log clock, where the line itself does not begin with it.
   */
  add(line: string, timeUs?: number): void {
    if (typeof line !== 'string') throw typeError('line', 'a string', line)
    if (timeUs !== undefined && typeof timeUs !== 'number') {
      throw typeError('timeUs', 'a number', timeUs)
    }
    // A record's own line breaks, as /dev/kmsg writes them.
    for (const each of line.split(/\n|\\x0a/)) this.#addLine(each, timeUs)
  }

  /**
   * Those that have come since the last call. A report that has begun counts as
   * ended: call it when nothing has come for a while.
   */
  take(): KernelComplaint[] {
    this.#end()
    return this.#found.splice(0)
  }

  #addLine(line: string, givenUs?: number): void {
    const seconds = PREFIX.exec(line)?.[1]
    const timeUs = seconds === undefined ? (givenUs ?? null) : Number(seconds) * 1e6
    const text = line.trimEnd().replace(PREFIX, '')
    if (this.#report !== null && isLate(this.#report, timeUs)) this.#end()
    if (CUT_HERE.test(text)) return this.#begin(text, true, timeUs)
    const report = this.#report
    const complaint = complaintIn(text)
    if (report !== null && (complaint === null || goesOn(report, text))) {
      if (report.named < 0 && NAMES.test(text)) report.named = report.lines.length
      report.lines.push(text)
      report.timeUs = timeUs ?? report.timeUs
      if (isEnd(report, text)) this.#end()
      return
    }
    if (complaint !== null) this.#begin(text, false, timeUs)
  }

  #begin(text: string, isCut: boolean, timeUs: number | null): void {
    this.#end()
    this.#report = { lines: [text], isCut, named: NAMES.test(text) ? 0 : -1, timeUs }
  }

  #end(): void {
    const report = this.#report
    this.#report = null
    if (report !== null) this.#found.push({ summary: summaryOf(report), lines: report.lines })
  }
}

/** The stack is printed at once; what comes later is of something else. */
function isLate({ isCut, timeUs: last }: Report, timeUs: number | null): boolean {
  return !isCut && last !== null && timeUs !== null && timeUs - last > STACK_US
}

/** Whether a line that complains is of the report before it. */
function goesOn({ isCut, named, lines }: Report, text: string): boolean {
  if (isCut || CONTINUES.test(text)) return true
  // What a warning says, then where it is: its frame may be of a lower level than a console shows.
  return named < 0 && lines.length === 1 && NAMES.test(text)
}

function isEnd({ lines, isCut }: Report, text: string): boolean {
  if (END_TRACE.test(text)) return true
  if (isCut) return lines.length >= MOST_LINES
  // The frame's first half may come right behind the heading.
  const isFrame = FRAME.test(text) && lines.length > 2
  return isFrame || END_OF_STACK.test(text) || lines.length >= MOST_LINES_UNFRAMED
}

/** The line that names it, and what a warning's code said before that. */
function summaryOf({ lines, isCut, named }: Report): string {
  if (!isCut) return unique([lines[0] ?? '', lines[named] ?? '']).join(' ')
  const said = lines.slice(1, named < 0 ? 2 : named + 1)
  return said.length === 0 ? 'a warning whose lines are lost' : unique(said).join(' ')
}

function unique(lines: string[]): string[] {
  return [...new Set(lines.map((line) => line.trim()).filter((line) => line !== ''))]
}

/** Takes in all that there is to read now, of the kernel's own: a program may write there, too. @internal */
export function readComplaints(log: KernelLog, complaints: KernelComplaints): void {
  for (let records = log.read(); records.length > 0; records = log.read()) {
    for (const { facility, text, timeUs } of records) {
      if (facility === 0) complaints.add(text, timeUs)
    }
  }
}
