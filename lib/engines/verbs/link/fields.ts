/**
 * The kinds of a message's fields. Each reads what JSON gave it and returns a
 * fresh value, or a `Refusal` that says what it should have been: nothing that
 * a peer has sent is passed on as it came.
 */

/** What a field should have been, and which part of it was not. */
export class Refusal {
  /** Of the field itself: '', or where in it: '[3].rkey'. */
  readonly where: string
  readonly expected: string

  constructor(expected: string, where = '') {
    this.expected = expected
    this.where = where
  }
}

export interface Field<T> {
  /** May be left out: the message is then read without it. */
  readonly optional?: boolean
  read(value: unknown): T | Refusal
}

/** What the fields of an object of type `T` are, all of them. */
export type FieldsOf<T> = { readonly [K in keyof T]-?: Field<Exclude<T[K], undefined>> }

/** A whole number. */
export function whole(min: number, max: number): Field<number> {
  const refusal = new Refusal(`a whole number from ${min} to ${max}`)
  return {
    read(value) {
      if (typeof value !== 'number' || !Number.isSafeInteger(value)) return refusal
      // JSON has a -0.
      return value >= min && value <= max ? value + 0 : refusal
    },
  }
}

export function oneOf<T extends number>(...values: readonly T[]): Field<T> {
  const refusal = new Refusal(`one of ${values.join(', ')}`)
  return { read: (value) => values.find((one) => one === value) ?? refusal }
}

export function hex(digits: number): Field<string> {
  const pattern = new RegExp(`^[0-9a-f]{${digits}}$`)
  const refusal = new Refusal(`${digits} lower-case hexadecimal digits`)
  return { read: (value) => (typeof value === 'string' && pattern.test(value) ? value : refusal) }
}

export const flag: Field<boolean> = {
  read: (value) => (typeof value === 'boolean' ? value : new Refusal('true or false')),
}

/** A name that may go into logs, paths and messages. */
export const name: Field<string> = {
  read: (value) =>
    typeof value === 'string' && /^[\w.:-]{1,64}$/.test(value)
      ? value
      : new Refusal('1 to 64 letters, digits or _.:-'),
}

const TEXT_MAX = 256

/** For people: no control characters, nothing that turns a terminal's text around. */
export const text: Field<string> = {
  read: (value) =>
    typeof value === 'string' && value.length <= TEXT_MAX && !/\p{C}/u.test(value)
      ? value
      : new Refusal(`a text of at most ${TEXT_MAX} characters, without control characters`),
}

/** Any string as a `text`. */
export function toText(value: string): string {
  const clean = value.replace(/\p{C}+/gu, ' ')
  if (clean.length <= TEXT_MAX) return clean
  // The cut may leave half a surrogate pair.
  return `${clean.slice(0, TEXT_MAX - 1).replace(/\p{C}+/gu, '')}…`
}

export function optional<T>(field: Field<T>): Field<T> {
  return { optional: true, read: (value) => field.read(value) }
}

export function listOf<T>(max: number, fields: FieldsOf<T>): Field<readonly T[]> {
  return {
    read(value) {
      if (!Array.isArray(value) || value.length > max) {
        return new Refusal(`a list of at most ${max}`)
      }
      const list: T[] = []
      for (const [index, one] of value.entries()) {
        const item = readFields(one, fields)
        if (item instanceof Refusal) return new Refusal(item.expected, `[${index}]${item.where}`)
        list.push(item)
      }
      return list
    },
  }
}

/** An object with exactly these fields. `where` of a refusal begins with a dot. */
export function readFields<T>(value: unknown, fields: FieldsOf<T>): T | Refusal {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return new Refusal('an object')
  }
  const given = value as Record<string, unknown>
  const table = Object.entries(fields as Record<string, Field<unknown>>)
  const result: Record<string, unknown> = {}
  for (const [key, field] of table) {
    const part = Object.hasOwn(given, key) ? given[key] : undefined
    if (part === undefined) {
      if (field.optional === true) continue
      return new Refusal('there', `.${key}`)
    }
    const read = field.read(part)
    if (read instanceof Refusal) return new Refusal(read.expected, `.${key}${read.where}`)
    result[key] = read
  }
  const unknown = Object.keys(given).find((key) => !Object.hasOwn(fields as object, key))
  if (unknown !== undefined) return new Refusal('a known field', `.${shortened(unknown)}`)
  return result as T
}

/** Someone else's word, fit for a message. */
export function shortened(word: string): string {
  return /^[\w-]{1,32}$/.test(word) ? word : '?'
}
