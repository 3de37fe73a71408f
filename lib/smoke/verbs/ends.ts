/** Two ends of a connection, in this process or with a peer, and their channels. */
import { once } from 'node:events'
import type { Peer } from '../../engines/verbs/peer.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import type { Port } from '../plant.js'

/** Operations on the way at most. */
export const DEPTH = 256

/** One end of a queue pair. */
export interface End {
  peer: Peer
  channel: Channel
  port: Port
}

/** Opens a queue pair between two peers of this process, and a channel at either end. */
export async function openEnds(
  [first, second]: readonly [Peer, Peer],
  [from, to]: readonly [Port, Port],
): Promise<[End, End]> {
  const accepted = once(second, 'queue') as Promise<[string]>
  const queue = await first.openQueue({ depth: DEPTH })
  const [other] = await accepted
  return [
    { peer: first, port: from, channel: from.importer.channel({ queue, depth: DEPTH }) },
    { peer: second, port: to, channel: to.importer.channel({ queue: other, depth: DEPTH }) },
  ]
}
