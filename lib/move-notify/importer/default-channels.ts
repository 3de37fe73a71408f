import type { Channel, ChannelOptions } from './channel.js'

/** An importer's own channels, one for each queue of its device, opened when first used. */
export class DefaultChannels {
  readonly #open: (options: ChannelOptions) => Channel
  readonly #channels = new Map<string | undefined, Channel>()

  constructor(open: (options: ChannelOptions) => Channel) {
    this.#open = open
  }

  get(queue: string | undefined): Channel {
    const known = this.#channels.get(queue)
    if (known !== undefined && known.state !== 'closed') return known
    const channel = this.#open({ queue })
    this.#channels.set(queue, channel)
    return channel
  }
}
