import { P2pdmaError, typeError } from '../../errors.js'

/**
 * A PCI device's address as the kernel spells it, `0000:00:11.0`; the domain
 * may be left out. ERR_INVALID_ARG_VALUE where it is none.
 */
export function parseBdf(text: string, argument = 'address'): string {
  if (typeof text !== 'string') throw typeError(argument, 'a string', text)
  const pattern = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i
  const [, domain = '0000', bus = '', slot = '', fn = ''] = pattern.exec(text) ?? []
  if (bus === '') {
    throw new P2pdmaError(`${JSON.stringify(text)} is not the address of a PCI device`, {
      code: 'ERR_INVALID_ARG_VALUE',
      argument,
      hint: 'it looks like 0000:03:00.0: domain, bus, device and function, in hexadecimal',
    })
  }
  return `${domain}:${bus}:${slot}.${fn}`.toLowerCase()
}
