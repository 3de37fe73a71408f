export interface TracedFault {
  /** `0000:00:12.0` */
  device: string
  write: boolean
  /** Of this access, to the byte: it is 4 bytes at most. */
  iova: number
}

/** The lines of QEMU's trace event vtd_dmar_fault (hw/i386/trace-events), in order. */
export function dmarFaults(trace: string): TracedFault[] {
  const pattern = /vtd_dmar_fault sid 0x([0-9a-f]+) fault \d+ addr 0x([0-9a-f]+) write ([01])/g
  return [...trace.matchAll(pattern)].map(([, sid = '', address = '', write]) => {
    const id = parseInt(sid, 16)
    const hex = (value: number) => value.toString(16).padStart(2, '0')
    return {
      device: `0000:${hex(id >> 8)}:${hex((id >> 3) & 0x1f)}.${id & 7}`,
      write: write === '1',
      iova: parseInt(address, 16),
    }
  })
}
