import type { Change } from './sandbox.js'

export interface Control extends Change {
  name: string
  tests: string[]
}

export interface Mutant extends Change {
  /** What is taken out. */
  name: string
  /** The compiled test file, under dist/test. */
  test: string
  /** The assertion that notices. */
  killedBy: string
}

const SAFEGUARDS = 'unit/safeguards.test.js'
const HELD = 'unit/invariants-held.test.js'

export const controls: Control[] = [
  {
    name: 'the unmutated control',
    file: 'lib/move-notify/exporter/move.ts',
    find: 'const invalidated = invalidateAll(buffer, old)',
    replace: 'const invalidated = invalidateAll(buffer, old)',
    tests: [SAFEGUARDS, HELD, 'unit/heart.test.js'],
  },
  {
    name: 'a harmless mutant (another hint)',
    file: 'lib/move-notify/exporter/move.ts',
    find: 'unpin it first: a pin is a promise that it does not move',
    replace: 'unpin it first',
    tests: [SAFEGUARDS, HELD, 'unit/heart.test.js'],
  },
]

export const mutants: Mutant[] = [
  {
    name: 'the wait for in-flight work',
    file: 'lib/move-notify/importer/restart.ts',
    find: 'return this.#drain(stopped).then((forced) => this.#onQuiet(forced))',
    replace: 'void this.#drain(stopped)\n    return void this.#onQuiet(false)',
    test: SAFEGUARDS,
    killedBy: 'no mapping goes while work is in flight',
  },
  {
    name: 'the unmap',
    file: 'lib/move-notify/importer/restart.ts',
    find: 'return engineUnmap(attachment.importer, attachment.id)',
    replace: 'return undefined',
    test: SAFEGUARDS,
    killedBy: 'the old mapping is gone before a byte is copied',
  },
  {
    name: 'the unlock where a restore fails',
    file: 'lib/move-notify/importer/restart.ts',
    find: 'remapped === undefined ? unlock : whenRestored(remapped, unlock)',
    replace: 'remapped === undefined ? unlock : remapped.then(() => unlock)',
    test: SAFEGUARDS,
    killedBy: 'the lock is free where a mapping could not be taken away',
  },
  {
    name: 'the wait for the move fence',
    file: 'lib/move-notify/importer/restart.ts',
    find: 'mapped === undefined && buffer.reservation.isIdle(Usage.KERNEL)',
    replace: 'mapped === undefined',
    test: SAFEGUARDS,
    killedBy: 'no work runs before the move fence has signalled',
  },
  {
    name: 'the question whether all can follow',
    file: 'lib/move-notify/exporter/move.ts',
    find: 'options.force === true ? null : refusalOf(buffer.attachments, fresh)',
    replace: 'null as Error | null; void refusalOf',
    test: SAFEGUARDS,
    killedBy: 'who cannot follow is asked before anything is stopped',
  },
  {
    name: 'the second try of what could not follow',
    file: 'lib/move-notify/exporter/move.ts',
    find: 'for (const attachment of buffer.attachments) attachment.retry()',
    replace: '',
    test: SAFEGUARDS,
    killedBy: 'the next move brings its mapping back',
  },
  {
    name: 're-resolve at post',
    file: 'native/software/channel.cc',
    find: 'operation.target_generation = target;',
    replace: '',
    test: HELD,
    killedBy: 'held work goes on in the new backing',
  },
  {
    name: 'the re-check before the gate opens',
    file: 'lib/move-notify/importer/restart.ts',
    find: `this.#state === 'restoring' && this.#blockers.size === 0 && this.#invalidations === seen`,
    replace: '!this.isDead',
    test: SAFEGUARDS,
    killedBy: 'the gate stays closed while a mapping is invalid',
  },
  {
    name: 'poison only after the fence',
    file: 'lib/move-notify/exporter/move.ts',
    find: 'await fence?.wait()',
    replace: 'void fence',
    test: SAFEGUARDS,
    killedBy: 'the old backing is not poisoned while the copy reads it',
  },
  {
    name: 'the epoch match of a completion',
    file: 'lib/move-notify/importer/operation-queue.ts',
    find: 'if (out.epoch[row] !== this.#gate.epoch) {',
    replace: 'if (out.epoch[row] === 0) {',
    test: SAFEGUARDS,
    killedBy: 'a late completion of an earlier epoch is dropped',
  },
  {
    name: 'the detach of a view',
    file: 'lib/exporters/mapped-backing.ts',
    find: `if (this.ended) return
    this.#mapping.unmap()`,
    replace: 'if (this.ended) return',
    test: HELD,
    killedBy: 'a stale view is empty',
  },
  {
    name: 'the back-off',
    file: 'lib/move-notify/reservation/ww-mutex.ts',
    find: 'unlockAll(context, list, before)\n      if (context.held > 0 || !isDeadlock(error)) throw error',
    replace: 'if (!isDeadlock(error)) throw error',
    test: SAFEGUARDS,
    killedBy: 'the younger one has let go of what the older one waits for',
  },
  {
    name: 'the stamp kept across retries',
    file: 'lib/move-notify/importer/restart.ts',
    find: `const context = reservationClass.acquire()
    for (let attempt = 0; ; attempt++) {`,
    replace: `let context = reservationClass.acquire()
    for (let attempt = 0; ; attempt++) {
      if (attempt > 0) context = reservationClass.acquire()`,
    test: SAFEGUARDS,
    killedBy: 'every attempt of a restore has the same stamp',
  },
  {
    name: 'the question whether the reservation is held',
    file: 'lib/move-notify/reservation/reservation.ts',
    find: 'if (this.locked) return',
    replace: 'return',
    test: 'unit/heart.test.js',
    killedBy: 'invalidate needs the reservation',
  },
  {
    name: 'contended lock first',
    file: 'lib/move-notify/reservation/ww-mutex.ts',
    find: 'contended = current',
    replace: 'void current',
    test: SAFEGUARDS,
    killedBy: 'after a back-off nothing is tried until the contended lock comes',
  },
]
