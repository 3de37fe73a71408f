import t from 'tap'
import { execFileSync } from 'node:child_process'
import { closeSync, constants, readdirSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { OwnedFd } from '../../lib/kernel/owned-fd.js'
import { Memfd } from '../../lib/kernel/memfd.js'
import {
  isReady,
  type PollCalls,
  Ready,
  startWait,
  type WaitOptions,
} from '../../lib/kernel/poll.js'
import { native, type NativeFd } from '../../lib/native.js'

const openFds = () => readdirSync('/proc/self/fd').length

/** A pipe that both ends are open of: not readable until something is written. */
class Fifo extends OwnedFd {
  constructor(fd: NativeFd) {
    super(fd)
  }
  dup(): Fifo {
    return new Fifo(native.dupFd(this.handle))
  }
  write(): void {
    writeSync(this.fd, 'x')
  }
  drain(): void {
    readSync(this.fd, Buffer.alloc(1))
  }
  readable(options: WaitOptions = {}): Promise<void> {
    return this.waitFor(Ready.READABLE, options)
  }
}

const folder = t.testdir({})
let made = 0

function fifo(): Fifo {
  const path = join(folder, `fifo${made++}`)
  execFileSync('mkfifo', [path])
  return new Fifo(native.openFd(path, constants.O_RDWR | constants.O_NONBLOCK))
}

t.test('resolves when ready, and only then', async (t) => {
  const before = openFds()
  using pipe = fifo()
  t.notOk(isReady(pipe.handle, Ready.READABLE))
  t.ok(isReady(pipe.handle, Ready.WRITABLE))
  let done = 0
  const waits = Array.from({ length: 10 }, () => pipe.readable().then(() => done++))
  await turn()
  t.equal(done, 0)
  pipe.write()
  await Promise.all(waits)
  t.equal(done, 10, 'one descriptor, ten waits')
  await pipe.readable()
  t.ok(isReady(pipe.handle, Ready.READABLE))
  pipe.drain()
  t.notOk(isReady(pipe.handle, Ready.READABLE))
  await t.rejects(pipe.readable({ timeoutMs: 1 }), { code: 'ETIMEDOUT' })
  pipe.close()
  for (let i = 0; i < 10 && openFds() > before; i++) await turn()
  t.equal(openFds(), before, 'the duplicates are closed')
})

t.test('abort', async (t) => {
  using pipe = fifo()
  const aborted = AbortSignal.abort(new Error('why'))
  await t.rejects(pipe.readable({ signal: aborted }), {
    code: 'ABORT_ERR',
    cause: { message: 'why' },
  })
  const controller = new AbortController()
  const wait = pipe.readable({ signal: controller.signal })
  controller.abort()
  await t.rejects(wait, { code: 'ABORT_ERR', name: 'AbortError' })
  const late = new AbortController()
  pipe.write()
  await pipe.readable({ signal: late.signal })
  late.abort()
  await t.rejects(pipe.readable({ signal: {} as AbortSignal }), { code: 'ERR_INVALID_ARG_TYPE' })
  for (const timeoutMs of [-1, NaN, 2 ** 31]) {
    await t.rejects(pipe.readable({ timeoutMs }), { code: 'ERR_OUT_OF_RANGE' })
  }
})

t.test('close while pending', async (t) => {
  const pipe = fifo()
  const waits = [pipe.readable(), pipe.readable({ timeoutMs: 1000_000 })]
  pipe.close()
  pipe.close()
  for (const wait of waits) await t.rejects(wait, { code: 'ERR_CLOSED' })
  await t.rejects(pipe.readable(), { code: 'ERR_CLOSED' })
})

t.test('a descriptor closed behind its owner is a typed error', async (t) => {
  const pipe = fifo()
  const wait = pipe.readable()
  closeSync(pipe.fd)
  await t.rejects(pipe.readable(), { code: 'EBADF', syscall: /dup/i })
  t.throws(() => pipe.dup(), { code: 'EBADF' })
  pipe.close()
  await t.rejects(wait, { code: 'ERR_CLOSED' })
})

t.test('a memfd is always ready', async (t) => {
  using memfd = Memfd.create(1)
  await startWait(memfd.handle, Ready.READABLE).promise
  // epoll refuses it with EPERM: the path of a file that poll(2) calls not ready.
  t.throws(() => native.pollFd(memfd.handle, Ready.READABLE, () => undefined), { code: 'EPERM' })
  const fakeNotReady: PollCalls = { pollNow: () => 0, pollFd: native.pollFd }
  await startWait(memfd.handle, Ready.READABLE, {}, fakeNotReady).promise
})

t.test('errors of a fake kernel', async (t) => {
  using memfd = Memfd.create(1)
  const refusing = (code: string): PollCalls => ({
    pollNow: () => 0,
    pollFd: () => {
      throw Object.assign(new Error(code), { code, errno: -24, syscall: 'epoll_ctl' })
    },
  })
  const wait = startWait(memfd.handle, Ready.READABLE, {}, refusing('EMFILE'))
  await t.rejects(wait.promise, { name: 'P2pdmaError', code: 'EMFILE', syscall: 'epoll_ctl' })
  let stopped = 0
  const failing: PollCalls = {
    pollNow: () => 0,
    pollFd: (_fd, _events, callback) => {
      setImmediate(() => {
        callback(-9)
      })
      return () => stopped++
    },
  }
  const failed = startWait(memfd.handle, Ready.READABLE, {}, failing)
  await t.rejects(failed.promise, { code: 'EBADF', errno: -9 })
  t.equal(stopped, 1)
  failed.cancel(new Error('too late'))
})

t.test('bad arguments of the native call', (t) => {
  using pipe = fifo()
  const nothing = () => undefined
  t.throws(() => native.pollFd({} as NativeFd, 1, nothing), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => native.pollFd(pipe.handle, 4, nothing), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => native.pollFd(pipe.handle, 1, null as never), { code: 'ERR_INVALID_ARG_TYPE' })
  t.throws(() => native.pollFd(pipe.handle, 0, nothing), { code: 'ERR_OUT_OF_RANGE' })
  const stop = native.pollFd(pipe.handle, 1, nothing)
  stop()
  stop()
  t.end()
})
