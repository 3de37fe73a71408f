/** Errors by code: what stands behind one, and what helps. */
export { noRoomToLoad } from './dlopen.js'
export { explain, type Explanation } from './explain.js'
export type { About, Doing, Failure } from './failure.js'
export { Machine } from './machine.js'
