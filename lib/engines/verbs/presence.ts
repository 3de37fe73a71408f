/** Whether a device that is open here is there still. */
import { statSync } from 'node:fs'
import { sleep } from '../../move-notify/reservation/deadline.js'

/** From one look to the next, ms. */
const LOOK_MS = 10

/**
 * What a call answers once uverbs has taken the device from those who have it open, or its
 * driver cannot reach it (drivers/infiniband/core/uverbs_main.c, ib_uverbs_remove_one()).
 */
const GONE: ReadonlySet<unknown> = new Set(['EIO', 'ENODEV', 'ENXIO'])

/** Whether an error of a call is one that a device which is no more gives. */
export function saysGone(error: unknown): boolean {
  return GONE.has((error as NodeJS.ErrnoException | null)?.code)
}

export class Presence {
  readonly #path: string
  /** Another device of that name has another one. */
  readonly #inode: number | null

  /** Of the device that has this name now. */
  constructor(name: string) {
    this.#path = `/sys/class/infiniband/${name}`
    this.#inode = inodeOf(this.#path)
  }

  /**
   * The kernel lists it no more. By then it has destroyed all that user space had of it,
   * memory regions included, so that it reaches no memory of ours any more
   * (drivers/infiniband/core/device.c, __ib_unregister_device(): disable_device(), which
   * removes uverbs as its client, comes before device_del()).
   */
  get isGone(): boolean {
    return this.#inode !== null && inodeOf(this.#path) !== this.#inode
  }

  /** Whether that is so within so many milliseconds. */
  async ends(ms: number): Promise<boolean> {
    for (let left = ms; !this.isGone; left -= LOOK_MS) {
      if (left <= 0) return false
      await sleep(LOOK_MS)
    }
    return true
  }
}

function inodeOf(path: string): number | null {
  try {
    return statSync(path).ino
  } catch {
    return null
  }
}
