/** What stands before the payload of a frame: IEEE 802.3, 3.2. */

export const HEADER_BYTES = 14

/** IEEE 802, "local experimental EtherType 1". */
const ETHERTYPE = 0x88b5

/** Addresses as `52:54:00:12:34:56`. */
export function ethernetHeader(to: string, from: string): Uint8Array {
  const address = (text: string) => text.split(':').map((byte) => Number.parseInt(byte, 16))
  return Uint8Array.of(...address(to), ...address(from), ETHERTYPE >> 8, ETHERTYPE & 0xff)
}
