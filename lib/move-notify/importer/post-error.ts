/** What `EngineChannel.post()` throws for a malformed row. */
import { P2pdmaError, type ErrorDetails } from '../../errors.js'

export class PostError extends P2pdmaError {
  /** Operations before the malformed one; they have been posted. */
  readonly accepted: number

  constructor(message: string, details: ErrorDetails, accepted: number) {
    super(message, details)
    this.accepted = accepted
  }
}
