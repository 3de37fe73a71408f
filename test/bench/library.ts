import type * as own from '../../lib/index.js'

/**
 * The library that is measured: this checkout's, or another's, of which nothing
 * but the public API is used, so that what is behind it may differ.
 */
export type Library = typeof own
