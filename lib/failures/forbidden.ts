/** Who forbids a call to a process that may do it by its user: containers, and filters. */
import type { Failure } from './failure.js'
import type { Symptom } from './symptom.js'

/** Calls of the kernel's own, which a filter can answer. */
const RAW =
  /^(memfd_create|mmap|madvise|ioctl|open|close|eventfd|epoll|fcntl|fstat|ftruncate|lseek|pread|pwrite|poll)/

export const forbidden: readonly Symptom[] = [
  {
    codes: ['EPERM'],
    syscall: /^open$/,
    when: ({ path = '' }) => path.startsWith('/dev/'),
    hint: ({ path = '' }) =>
      `the cgroup of this container has no right to the device: \`docker run --device ${path}\``,
    source: 'security/device_cgroup.c, devcgroup_check_permission()',
  },
  {
    codes: ['EPERM'],
    when: (_, machine) => machine.isFiltered,
    hint: filtered,
    source: 'kernel/seccomp.c, __seccomp_filter(), SECCOMP_RET_ERRNO',
  },
  {
    codes: ['ENOSYS'],
    syscall: RAW,
    when: (_, machine) => machine.isFiltered,
    hint: filtered,
    source: 'kernel/seccomp.c, __seccomp_filter(), SECCOMP_RET_ERRNO',
  },
]

function filtered({ syscall = 'the call' }: Failure): string {
  return (
    `a seccomp filter is in force (Seccomp: 2 in /proc/self/status), and may be what forbids ` +
    `${syscall}, which the kernel has: allow it in the profile of the container, or of the service`
  )
}
