/**
 * Calls of the public surface as those make them who have no types: arguments left out,
 * objects that only look right, options whose fields are wrong one at a time, receivers
 * that are none. Whoever has the objects hands them in: the host's tests what needs no
 * device, the guest's the rest.
 */
import { P2pdmaError } from '../../lib/errors.js'

export interface Param {
  good: unknown
  /** Bad values that are good ones here. */
  takes: (value: unknown) => boolean
}

export interface Row {
  call: (...args: never[]) => unknown
  params: Param[]
  /** After a call that went through: what no `close()` of its result does. */
  undo?: (result: unknown) => unknown
  /** What it returns is not the caller's to close. */
  isLookup?: boolean
  /** Takes any number of the last one, none as well. */
  isVariadic?: boolean
  /** Its good call may wait for ever. */
  mayWait?: boolean
}

/** What no parameter takes, or only few do. */
export function badValues(): unknown[] {
  const detached = new Uint8Array(8)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  const numbers = [-1, -0, -0.5, 0.5, NaN, Infinity, 2 ** 53]
  const bigints = [5n, -1n, 2n ** 64n]
  const objects: unknown[] = [{}, [], [null], Object.create(null), new Proxy({}, {}), revoked()]
  const memory = [
    detached,
    new SharedArrayBuffer(1),
    new Float32Array(3),
    new DataView(new ArrayBuffer(1)),
  ]
  const fields = { signal: 'x', poison: 1, offset: -1 }
  const others = [undefined, null, 'text', Symbol('symbol'), () => 1, true, fields]
  return [...others, ...numbers, ...bigints, ...objects, ...memory]
}

/** Of each kind one, for the guest, where each call takes long. */
export function someBadValues(): unknown[] {
  return [undefined, null, 'text', Symbol('symbol'), 5n, -1, 0.5, 2 ** 53, {}, revoked()]
}

/** What a call came to. */
export interface Outcome {
  how: 'threw' | 'rejected' | 'went through' | 'waits'
  value?: unknown
}

/** Whether a member returns a promise, by its declaration; undefined: not known here. */
export type Promising = (name: string) => boolean | undefined

/** Longer than any of these calls takes on a busy machine: what takes longer waits for good. */
const PATIENCE_MS = 20_000

/** Thrown by getters of options: what is the caller's own comes out as it is. */
const ownError = new Error('of the caller')

export async function outcomeOf(call: () => unknown, mayWait = false): Promise<Outcome> {
  let result: unknown
  try {
    result = call()
  } catch (value) {
    return { how: 'threw', value }
  }
  let late: NodeJS.Timeout | undefined
  const waits = new Promise<Outcome>((resolve) => {
    late = setTimeout(() => resolve({ how: 'waits' }), mayWait ? 20 : PATIENCE_MS)
  })
  const settled = Promise.resolve(result).then(
    (value): Outcome => ({ how: 'went through', value }),
    (value: unknown): Outcome => ({ how: 'rejected', value }),
  )
  const outcome = await Promise.race([settled, waits])
  clearTimeout(late)
  return outcome
}

/** Null where it was refused with a typed error, and in the one way that there is. */
export function complaintOf(name: string, outcome: Outcome, promising: Promising): string | null {
  const { how, value } = outcome
  if (how === 'waits') return 'waits for ever'
  if (how === 'went through') return `accepted: ${show(value)}`
  const returnsPromise = promising(name)
  if (how === 'threw' && returnsPromise === true) return 'throws, though it returns a promise'
  if (how === 'rejected' && returnsPromise === false) return 'rejects, though it returns none'
  if (value === ownError) return null
  if (!(value instanceof P2pdmaError)) return `bare ${String(value)}`
  return typeof value.code === 'string' ? null : `without a code: ${String(value)}`
}

export function show(value: unknown): string {
  try {
    if (typeof value === 'object' && value !== null) return Object.prototype.toString.call(value)
    return String(value)
  } catch {
    return 'a revoked proxy'
  }
}

// --- receivers ---

/** A class of the surface, and an object of it where there is one. */
export interface Known {
  type: { readonly name: string; readonly prototype: object }
  instance?: object | undefined
}

export function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

/** Each method and accessor of these classes, on each kind of receiver that is none. */
export async function walkReceivers(
  classes: readonly Known[],
  promising: Promising,
): Promise<{ wrong: string[]; calls: number }> {
  const wrong: string[] = []
  let calls = 0
  for (const { type, instance } of classes) {
    const { prototype } = type
    const receivers: [string, unknown][] = [
      ['undefined', undefined],
      ['null', null],
      ['a number', 5],
      ['an object', {}],
      ['its prototype', prototype],
      ['an object of its prototype', Object.create(prototype)],
      ['a revoked proxy', revoked()],
    ]
    if (instance !== undefined) {
      receivers.push(['a proxy of one', new Proxy(instance, {})])
      receivers.push(['one that inherits from one', Object.create(instance)])
    }
    for (const key of Reflect.ownKeys(prototype)) {
      if (key === 'constructor') continue
      const { value, get, set } = (Object.getOwnPropertyDescriptor(prototype, key) ?? {}) as Record<
        'value' | 'get' | 'set',
        unknown
      >
      for (const member of [value, get, set]) {
        if (typeof member !== 'function') continue
        const name = `${type.name}#${String(key)}`
        for (const [what, receiver] of receivers) {
          calls++
          const outcome = await outcomeOf(() => Reflect.apply(member, receiver, []))
          const { argument, code } = (outcome.value ?? {}) as Partial<P2pdmaError>
          const complaint =
            complaintOf(name, outcome, promising) ??
            (argument === 'this' && code === 'ERR_INVALID_ARG_TYPE' ? null : String(outcome.value))
          if (complaint !== null) wrong.push(`${name} on ${what}: ${complaint}`)
        }
      }
    }
  }
  return { wrong, calls }
}

// --- arguments ---

/** What looks like `good` and is not of its class. */
export function lookalikes(good: unknown): unknown[] {
  if (typeof good !== 'object' || good === null || isPlain(good)) return []
  const prototype = Reflect.getPrototypeOf(good)
  return [
    Object.create(prototype),
    Object.create(good),
    new Proxy(good, {}),
    Object.assign(Object.create(prototype) as object, good),
    { ...good },
    revoked(),
  ]
}

function isPlain(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    Reflect.getPrototypeOf(value) === Object.prototype
  )
}

/** What a parameter takes is told by functions that do not expect a revoked proxy. */
export function accepts({ takes }: Param, value: unknown): boolean {
  try {
    return takes(value)
  } catch {
    return false
  }
}

type Try = [what: string, args: unknown[], mayGoThrough: boolean]

/** Each call of a row that is tried; those that may be good ones may go through. */
function* tries(row: Row, bad: readonly unknown[]): Generator<Try> {
  const { params } = row
  const good = params.map((each) => each.good)
  const isGood = (args: unknown[]) =>
    params.every((each, i) => args[i] === each.good || accepts(each, args[i]))
  for (let count = 0; count < good.length; count++) {
    const args = good.slice(0, count)
    yield [`${count} arguments`, args, row.isVariadic === true || isGood(args)]
    const without = good.filter((_, i) => i !== count)
    yield [`without argument ${count}`, without, row.isVariadic === true || isGood(without)]
  }
  for (const [place, param] of params.entries()) {
    const { good: real } = param
    const at = (value: unknown) => good.map((each, i) => (i === place ? value : each))
    for (const value of bad) {
      yield [`argument ${place}: ${show(value)}`, at(value), accepts(param, value)]
    }
    for (const value of lookalikes(real)) {
      yield [`argument ${place}: looks like ${show(real)}`, at(value), accepts(param, value)]
    }
    if (isPlain(real)) yield* optionTries(real as object, param, at, bad, place)
  }
}

/** Fields that the call itself asks for, each with each bad value: what is right may be among them. */
function* optionTries(
  real: object,
  param: Param,
  at: (value: unknown) => unknown[],
  bad: readonly unknown[],
  place: number,
): Generator<Try> {
  const keys = new Set(Object.keys(real))
  const get = (target: object, key: string | symbol) => {
    if (typeof key === 'string' && !(key in Object.prototype)) keys.add(key)
    return Reflect.get(target, key) as unknown
  }
  yield [`argument ${place}: a proxy`, at(new Proxy(real, { get })), true]
  yield [`argument ${place}: revoked`, at(revoked()), accepts(param, revoked())]
  const bare = Object.assign(Object.create(null) as object, real)
  yield [`argument ${place}: without a prototype`, at(bare), true]
  for (const key of keys) {
    const what = `argument ${place}, ${key}`
    const having = (descriptor: PropertyDescriptor) =>
      at(Object.defineProperty({ ...real }, key, { enumerable: true, ...descriptor }))
    for (const value of bad) yield [`${what}: ${show(value)}`, having({ value }), true]
    const fail = () => {
      throw ownError
    }
    yield [`${what}: a getter that throws`, having({ get: fail }), true]
    let reads = 0
    const change = () => (reads++ === 0 ? (real as Record<string, unknown>)[key] : Symbol(key))
    yield [`${what}: a getter that changes its mind`, having({ get: change }), true]
  }
}

/**
 * A row of a device's, whose good call has these arguments: of an object only its own class
 * will do, of anything else any value may.
 */
export function rowOf(call: unknown, ...goods: unknown[]): Row {
  const params = goods.map((good): Param => {
    const isOwn = typeof good === 'object' && !isPlain(good) && !Array.isArray(good)
    return { good, takes: () => !isOwn }
  })
  return { call: call as Row['call'], params }
}

/** All of `tries()` for each row; what goes through is undone. */
export async function walkArguments(
  rows: Record<string, Row>,
  bad: readonly unknown[],
  promising: Promising,
): Promise<{ wrong: string[]; calls: number }> {
  const wrong: string[] = []
  let calls = 0
  for (const [name, row] of Object.entries(rows)) {
    for (const [what, args, mayGoThrough] of tries(row, bad)) {
      calls++
      const complaint = await attempt(name, row, args, promising, mayGoThrough)
      if (complaint !== null) wrong.push(`${name}, ${what}: ${complaint}`)
    }
  }
  return { wrong, calls }
}

/** One call of a row; null where it came to what it should. */
export async function attempt(
  name: string,
  row: Row,
  args: unknown[],
  promising: Promising,
  mayGoThrough: boolean,
): Promise<string | null> {
  const call = row.call as (...args: unknown[]) => unknown
  const outcome = await outcomeOf(() => call(...args), row.mayWait)
  if (outcome.how === 'waits' && row.mayWait === true && mayGoThrough) return null
  if (outcome.how === 'went through') {
    const undone = await outcomeOf(() => undo(name, row, outcome.value))
    if (undone.how !== 'went through') return `could not be undone: ${String(undone.value)}`
    if (mayGoThrough) return null
  }
  return complaintOf(name, outcome, promising)
}

async function undo(name: string, row: Row, result: unknown): Promise<void> {
  await row.undo?.(result)
  // A constructor's object has what it was given, which is ours.
  if (row.isLookup === true || typeof result !== 'object' || result === null) return
  if (/^[A-Z]\w*$/.test(name)) return
  for (const key of [Symbol.asyncDispose, Symbol.dispose, 'free', 'close'] as const) {
    const end = (result as Record<PropertyKey, unknown>)[key]
    if (typeof end !== 'function') continue
    await Reflect.apply(end, result, [])
    return
  }
}
