/**
 * Copies as messages: each is sent out of the source by one end and received
 * straight into the target by the other. A reliable connection keeps their
 * order, so that each goes where its receive has been posted for it.
 */
import { P2pdmaError } from '../../errors.js'
import type { Channel } from '../../move-notify/importer/channel.js'
import { type Copied, type LaneCopy, countChannel, type Form, type Lane } from '../lanes.js'
import { BatchMessages, type MessageForm, PromiseMessages } from '../message-forms.js'
import type { Tally } from '../tally.js'
import type { End } from './ends.js'

export class MessageLane implements Lane {
  readonly channel: Channel
  readonly #sender: End
  readonly #form: MessageForm
  readonly #tally: Tally

  constructor(form: Form, sender: End, receiver: End, tally: Tally) {
    const Messages = form === 'promise' ? PromiseMessages : BatchMessages
    this.#form = new Messages(sender.channel, receiver.channel, tally)
    this.#sender = sender
    this.#tally = tally
    this.channel = receiver.channel
  }

  async copy(copies: readonly LaneCopy[]): Promise<Copied> {
    // Both in this turn, so that other groups' do not come in between.
    const received = this.#form.receive(
      copies.map(({ to, toOffset, length }) => ({ attachment: to, offset: toOffset, length })),
    )
    const sent = this.#form.send(
      copies.map(({ from, fromOffset, length }) => ({
        attachment: from,
        offset: fromOffset,
        length,
      })),
    )
    const arrivals = await Promise.allSettled(received)
    const departures = await Promise.allSettled(sent)
    let failed = 0
    for (const [i, { length }] of copies.entries()) {
      const reason = why(departures[i]) ?? why(arrivals[i]) ?? short(arrivals[i], length)
      if (reason === null) continue
      failed++
      this.#tally.failed('failedOperations', reason)
    }
    return { failed, order: null }
  }

  count(): void {
    countChannel(this.#sender.channel, this.#tally)
    countChannel(this.channel, this.#tally)
    this.#form.count()
  }
}

function why(settled: PromiseSettledResult<unknown> | undefined): Error | null {
  return settled?.status === 'rejected' ? (settled.reason as Error) : null
}

function short(settled: PromiseSettledResult<number> | undefined, due: number): Error | null {
  const bytes = settled?.status === 'fulfilled' ? settled.value : 0
  if (bytes === due) return null
  return new P2pdmaError(`${bytes} bytes arrived instead of ${due}`, { code: 'ERR_SMOKE_FAILED' })
}
