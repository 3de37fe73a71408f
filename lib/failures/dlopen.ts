/** What dlopen(3) says, which has no errno, as one: glibc puts strerror(3)'s text at its end. */
import { constants } from 'node:os'
import { P2pdmaError } from '../errors.js'
import { explain } from './explain.js'

/** Those by which this process, or the machine, has no room: the library itself may be as it should. */
const TEXTS = [
  ['Too many open files in system', 'ENFILE'],
  ['Too many open files', 'EMFILE'],
  ['Cannot allocate memory', 'ENOMEM'],
] as const

/** The error of a library that is there and could not be loaded for want of something; null for another one. */
export function noRoomToLoad(cause: unknown, what: string): P2pdmaError | null {
  const { code: own, message = '' } = cause as NodeJS.ErrnoException
  const known = TEXTS.find(([text, code]) => message.includes(text) || own === code)
  if (known === undefined) return null
  const [text, code] = known
  const syscall = 'dlopen'
  return new P2pdmaError(`${code}: ${text.toLowerCase()}, ${syscall} '${what}'`, {
    code,
    errno: -constants.errno[code],
    syscall,
    hint: explain({ code, syscall }).hint,
    cause,
  })
}
