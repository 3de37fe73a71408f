/** /proc/self/fdinfo of a dma-buf (drivers/dma-buf/dma-buf.c, dma_buf_show_fdinfo). */
export interface DmaBufInfo {
  /** Bytes. */
  readonly size: number
  /** References to the dma-buf's file, less one. */
  readonly count: number
  /** The exporter's name. */
  readonly exporter: string
  /** As set by `setName`; empty where it has none. */
  readonly name: string
}

/** Parses the text; null where it is not that of a dma-buf. */
export function parseFdinfo(text: string): DmaBufInfo | null {
  const size = /^size:\t(\d+)$/m.exec(text)?.[1]
  const count = /^count:\t(-?\d+)$/m.exec(text)?.[1]
  const exporter = /^exp_name:\t(.*)$/m.exec(text)?.[1]
  if (size === undefined || count === undefined || exporter === undefined) return null
  // The name comes last and may hold anything, a newline too.
  const name = /\nname:\t([^]*?)\n?$/.exec(text)?.[1] ?? ''
  return { size: Number(size), count: Number(count), exporter, name }
}
