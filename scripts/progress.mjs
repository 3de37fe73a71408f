/** One line on a terminal that says how far long work is, and for how long it runs; nothing elsewhere. */
export class Progress {
  #timer
  #began = Date.now()

  /** @param {() => string} say what there is to say now */
  start(say) {
    if (!process.stderr.isTTY) return
    this.#timer = setInterval(() => {
      const seconds = Math.round((Date.now() - this.#began) / 1000)
      process.stderr.write(`\r\x1b[K${say()}, ${seconds} s`)
    }, 1000)
  }

  clear() {
    if (this.#timer !== undefined) process.stderr.write('\r\x1b[K')
  }

  stop() {
    this.clear()
    clearInterval(this.#timer)
  }
}
