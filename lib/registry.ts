/** What can be found by a name that its maker has registered: engines, exporters, drivers. */
import { P2pdmaError, checkOptions, looksLike, typeError } from './errors.js'

/**
 * The version of the interfaces that an engine, an exporter or a driver is written against
 * (`Engine`, `Exporter`, `Driver` and what they name). It goes up where one that was right
 * before would not be any more.
 */
export const INTERFACE_VERSION = 1

/** What every registration says. */
export interface Registered {
  /** The `INTERFACE_VERSION` that it was written against, as a number: never the constant. */
  readonly interfaceVersion: number
  /** What its names begin with, up to a colon, as `vfio` in `vfio:0000:03:00.0`. */
  readonly name: string
}

type Kind = 'engine' | 'exporter' | 'driver'

type Fields = Readonly<Record<string, 'function' | 'object' | 'string'>>

/** A colon ends it, and a comma parts one name from the next. */
const NAME = /^[a-z][^:,]*$/

export class Registry<T extends Registered> {
  readonly #kind: Kind
  readonly #fields: Fields
  readonly #all = new Map<string, T>()

  /** `fields`: what one must have beside what all have. */
  constructor(kind: Kind, fields: Fields) {
    this.#kind = kind
    this.#fields = fields
  }

  /**
   * ERR_INTERFACE_VERSION for another version, ERR_NAME_TAKEN for a name that is in use;
   * ERR_INVALID_ARG_TYPE and ERR_INVALID_ARG_VALUE for what cannot be registered at all.
   */
  add(one: T): void {
    const argument = this.#kind
    const { interfaceVersion, name } = checkOptions(one, argument)
    if (typeof interfaceVersion !== 'number') {
      throw typeError(`${argument}.interfaceVersion`, 'a number', interfaceVersion)
    }
    if (interfaceVersion !== INTERFACE_VERSION) throw this.#otherVersion(interfaceVersion)
    if (typeof name !== 'string') throw typeError(`${argument}.name`, 'a string', name)
    if (!NAME.test(name)) {
      throw new P2pdmaError(
        `${argument}.name must begin with a small letter and have no colon and no comma, not ${JSON.stringify(name)}`,
        { code: 'ERR_INVALID_ARG_VALUE', argument: `${argument}.name` },
      )
    }
    if (!looksLike(one, this.#fields)) {
      const wanted = Object.keys(this.#fields).join(', ')
      throw typeError(argument, `an object with name, interfaceVersion, ${wanted}`, one)
    }
    if (this.#all.has(name)) {
      throw new P2pdmaError(`There is ${article(argument)} named ${name}`, {
        code: 'ERR_NAME_TAKEN',
        argument: `${argument}.name`,
        hint: 'register it once, or under another name',
      })
    }
    this.#all.set(name, one)
  }

  #otherVersion(version: number): P2pdmaError {
    const isOlder = version < INTERFACE_VERSION
    return new P2pdmaError(
      `The ${this.#kind} is for version ${version} of the interface, which is ${INTERFACE_VERSION} here`,
      {
        code: 'ERR_INTERFACE_VERSION',
        argument: `${this.#kind}.interfaceVersion`,
        hint: isOlder
          ? `a newer version of the package that has the ${this.#kind} is needed`
          : 'a newer version of p2pdma is needed',
      },
    )
  }

  get(name: string): T | undefined {
    return this.#all.get(name)
  }

  /** In the order in which they were registered. */
  get all(): readonly T[] {
    return [...this.#all.values()]
  }

  /** The one whose name stands before the first colon, and what follows it; null: no colon. */
  find(name: string): { one: T; parameter: string | null } | null {
    const colon = name.indexOf(':')
    const one = this.#all.get(colon < 0 ? name : name.slice(0, colon))
    if (one === undefined) return null
    return { one, parameter: colon < 0 ? null : name.slice(colon + 1) }
  }
}

function article(kind: Kind): string {
  return kind === 'driver' ? 'a driver' : `an ${kind}`
}
