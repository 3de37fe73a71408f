// Reads TAP as it comes and counts the assertions: those that hold no others.

/** Files whose subtests are the files that ran in a guest: these get a line each, too. */
const guest = /rig\/(guest|rxe-dmabuf)[^/]*\.test/

export class Report {
  passed = 0
  failed = 0
  /** Files that have ended. */
  files = 0
  #say

  /** @param {import('tap-parser').Parser} parser of the outermost level */
  constructor(parser, say) {
    this.#say = say
    this.#watch(parser, [])
  }

  /** Counts a failure that is no assertion. */
  fail(message, diagnostics) {
    this.failed++
    this.#say(`FAIL ${message}`)
    for (const [key, value] of Object.entries(diagnostics ?? {})) {
      const text = typeof value === 'string' ? value.trimEnd() : JSON.stringify(value)
      this.#say(
        `     ${key}: ${text.includes('\n') ? text.replace(/^/gm, '\n       ').replace(/\n\n/g, '\n') : text}`,
      )
    }
  }

  /** Follows one level; gives back the counts of it, which grow. */
  #watch(parser, path) {
    const counts = { passed: 0, failed: 0 }
    let child
    parser.on('child', (inner) => {
      child = this.#watch(inner, [...path, inner.name])
    })
    parser.on('assert', (result) => {
      const inner = child
      child = undefined
      const name = [...path, result.name].join(' > ')
      if (inner === undefined || (!result.ok && inner.failed === 0)) {
        this.#count(result, name, counts)
      }
      counts.passed += inner?.passed ?? 0
      counts.failed += inner?.failed ?? 0
      if (path.length === 0) {
        this.files++
        this.#line(result, name, inner ?? counts)
      }
      if (path.length === 2 && guest.test(path[0])) {
        this.#line(result, result.name, inner ?? { passed: Number(result.ok), failed: 0 })
      }
    })
    parser.on('comment', (comment) => {
      if (path.length > 0 && /^# (kernel|guest)\b/.test(comment)) this.#say(comment.trim())
    })
    parser.on('bailout', (reason) => this.fail(`${path.join(' > ')} bailed out: ${reason}`))
    return counts
  }

  #count(result, name, counts) {
    if (result.ok && !result.skip && !result.todo) {
      this.passed++
      counts.passed++
      return
    }
    counts.failed++
    const { skip, todo } = result
    if (skip) this.fail(`${name} # SKIP ${skip === true ? '' : skip}`)
    else if (todo) this.fail(`${name} # TODO ${todo === true ? '' : todo}`)
    else this.fail(name, result.diag)
  }

  #line(result, name, { passed, failed }) {
    const time = result.time === undefined ? '' : `  ${(result.time / 1000).toFixed(1)} s`
    const bad = failed === 0 && result.ok ? '' : `, ${failed} failed`
    this.#say(
      `${bad === '' ? 'ok  ' : 'FAIL'} ${name.replace(/^dist\/test\//, '')}  ${passed} passed${bad}${time}`,
    )
  }
}
