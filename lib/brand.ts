/**
 * How a class knows its own. A private field cannot be forged: an object with the right
 * prototype, or a proxy around a real one, does not have it. `instanceof`, and every method
 * and accessor of a class that says `static { brand(this, ...) }`, go by that field: what
 * only looks right is a typed error, before anything has been done, and not a TypeError
 * about a private member from somewhere in the middle.
 */
import { types } from 'node:util'
import { type P2pdmaError, typeError } from './errors.js'

type Member = (this: unknown, ...args: unknown[]) => unknown

/** A class, as its static block sees it. */
interface Branded {
  readonly name: string
  readonly prototype: object
}

const hasPrototype = Function.prototype[Symbol.hasInstance]

export interface BrandOptions {
  /**
   * The methods that return a promise without being `async`. A function that returns a
   * promise never throws: what is wrong with a call rejects.
   */
  promising?: readonly string[]
  /**
   * What each operation or each batch goes through: it looks at its receiver itself, and
   * throws `notOwn()`, since a wrapper would cost more than it does.
   */
  hot?: readonly string[]
}

/** What was called was not called on an object that the class has made. */
export function notOwn(name: string, value: unknown): P2pdmaError {
  return typeError('this', `a ${name}`, value)
}

/**
 * `isOwn` looks for a private field, `(value) => #field in value`, and is given objects
 * only; a class that has none leaves it out, and goes by its base's.
 */
export function brand(
  type: Branded,
  isOwn: ((value: object) => boolean) | null = null,
  { promising = [], hot = [] }: BrandOptions = {},
): void {
  let isReceiver = (value: unknown) => value instanceof (type as unknown as new () => unknown)
  if (isOwn !== null) {
    isReceiver = (value) => typeof value === 'object' && value !== null && isOwn(value)
    // A subclass inherits it; `this` is the subclass then.
    const hasInstance = function (this: unknown, value: unknown): boolean {
      return isReceiver(value) && hasPrototype.call(this as Branded & (() => void), value)
    }
    Object.defineProperty(type, Symbol.hasInstance, { value: hasInstance })
  }
  const check = (member: Member): Member =>
    function (...args) {
      if (!isReceiver(this)) throw notOwn(type.name, this)
      return Reflect.apply(member, this, args)
    }
  const checkPromising = (member: Member): Member =>
    function (...args) {
      try {
        if (isReceiver(this)) return Reflect.apply(member, this, args)
        return Promise.reject(notOwn(type.name, this))
      } catch (error) {
        return Promise.reject(error)
      }
    }
  const { prototype } = type
  for (const key of Reflect.ownKeys(prototype)) {
    const found = Object.getOwnPropertyDescriptor(prototype, key)
    if (found === undefined || key === 'constructor' || hot.includes(String(key))) continue
    const { value, get, set } = found as { value?: unknown; get?: Member; set?: Member }
    if (typeof value === 'function') {
      const isPromising =
        types.isAsyncFunction(value) ||
        key === Symbol.asyncDispose ||
        (typeof key === 'string' && promising.includes(key))
      found.value = named(value as Member, (isPromising ? checkPromising : check)(value as Member))
    }
    if (get !== undefined) found.get = named(get, check(get))
    if (set !== undefined) found.set = named(set, check(set))
    Object.defineProperty(prototype, key, found)
  }
}

/** `wrapper`, which says of itself what `member` does. */
function named(member: Member, wrapper: Member): Member {
  for (const key of ['name', 'length'] as const) {
    Object.defineProperty(wrapper, key, { value: member[key], configurable: true })
  }
  return wrapper
}
