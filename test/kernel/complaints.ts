/** The kernel's complaints while tests run: which ones a test means to provoke, and a watch for the others. */
import { type KernelComplaint, KernelComplaints, KernelLog } from '../../lib/kernel/index.js'
import { readComplaints } from '../../lib/kernel/kernel-complaints.js'

interface Expected {
  /** The programs that provoke it, as `npm test` names them in the guest. */
  programs: RegExp
  /** What one of its lines says. */
  line: RegExp
}

/**
 * Each with the reason; a complaint of which no line is here fails the program
 * during which it came, and the run.
 */
export const expectedComplaints: readonly Expected[] = []

/** Writes more than the kernel's buffer holds, to see what was overwritten counted. */
const overrunsTheLog = /\/vfio-faults\.test\./

/** The expected ones of these programs, as `p2pdma rig --allow-complaint` takes them. */
export function allowedComplaints(programs: readonly string[]): string[] {
  return expectedComplaints
    .filter((each) => programs.some((program) => each.programs.test(program)))
    .flatMap(({ line }) => ['--allow-complaint', line.source])
}

/** So that the kernel's buffer does not run over: a record is dropped after a few thousand. */
const EVERY_MS = 500

/** Reads the kernel's log from now on. EPERM where it is not for this user. */
export class KernelWatch {
  readonly #log = KernelLog.open()
  readonly #complaints = new KernelComplaints()
  readonly #timer = setInterval(() => this.#read(), EVERY_MS).unref()

  #lostBefore = 0
  #lost = 0

  /** Records that nobody has read, but for those of a program that meant to overwrite them. */
  get lost(): number {
    return this.#lost
  }

  /** What came since the last call, but for what this program was to provoke. */
  take(program: string): KernelComplaint[] {
    this.#read()
    if (!overrunsTheLog.test(program)) this.#lost += this.#log.lost - this.#lostBefore
    this.#lostBefore = this.#log.lost
    const expected = expectedComplaints.filter((each) => each.programs.test(program))
    return this.#complaints
      .take()
      .filter(({ lines }) => !expected.some((each) => lines.some((line) => each.line.test(line))))
  }

  close(): void {
    clearInterval(this.#timer)
    this.#log.close()
  }

  #read(): void {
    readComplaints(this.#log, this.#complaints)
  }
}
