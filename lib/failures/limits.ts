/** Limits, of any call: one code has many causes, so these rows look at the machine. */
import { fullHugePages, fullMemory, fullPids, fullRdma, type Full } from './cgroups.js'
import { hugeFolder, type Machine } from './machine.js'
import type { Symptom } from './symptom.js'

const LIBIBVERBS = /^ibv_/
const RDMA = /^(ibv|rdma)_/

export const limits: readonly Symptom[] = [
  {
    codes: ['EMFILE'],
    hint:
      'this process has as many files open as it may: close some, or raise `ulimit -n`, ' +
      'LimitNOFILE= of systemd, or nofile in /etc/security/limits.conf',
    source: 'fs/file.c, alloc_fd()',
  },
  {
    codes: ['ENFILE'],
    hint: 'the whole machine has as many files open as it may: `sysctl fs.file-nr`, fs.file-max',
    source: 'fs/file_table.c, alloc_empty_file()',
  },
  {
    // pthread_create(3) has no ENOMEM.
    codes: ['ENOMEM', 'EAGAIN'],
    when: ({ code, syscall }, machine) => {
      if (code === 'EAGAIN' && syscall !== 'pthread_create') return false
      const most = machine.sysctl('vm.max_map_count')
      const now = most === null ? 0 : machine.mappings
      return most !== null && now >= most - 1 && manyMappings(now, most)
    },
    certain: true,
    source: 'mm/mmap.c, do_mmap(); mm/vma.c, split_vma()',
  },
  {
    codes: ['ENOMEM'],
    when: ({ hugePage, bytes = 1 }, machine) => {
      const pages = hugePage === undefined ? null : machine.hugePages(hugePage)
      if (pages === null) return false
      const wanted = Math.ceil(bytes / pages.size)
      return (
        pages.free < wanted &&
        `huge pages of ${kib(pages.size)}: ${wanted} are wanted, and ${pages.free} of ` +
          `${pages.total} are free: \`echo ${pages.total - pages.free + wanted} > ` +
          `${hugeFolder(pages.size)}/nr_hugepages\``
      )
    },
    certain: true,
    source: 'mm/hugetlb.c, hugetlb_reserve_pages()',
  },
  {
    codes: ['ENOMEM'],
    when: ({ hugePage, bytes = 1 }, machine) =>
      hugePage !== undefined && cgroupIsFull(fullHugePages(machine, hugePage, bytes), 'bytes'),
    certain: true,
    source: 'mm/hugetlb_cgroup.c, hugetlb_cgroup_charge_cgroup_rsvd()',
  },
  {
    // What a library of the device's driver allocates for its queues is pinned, too.
    codes: ['ENOMEM'],
    syscall: LIBIBVERBS,
    when: ({ bytes }, machine) => lockedMemory(machine, machine.memory('VmPin'), bytes),
    certain: true,
    source: 'drivers/infiniband/core/umem.c, __ib_umem_get_va()',
  },
  {
    codes: ['ENOMEM'],
    doing: ['type1.map'],
    when: ({ bytes }, machine) => lockedMemory(machine, machine.memory('VmLck'), bytes),
    certain: true,
    source: 'drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote()',
  },
  {
    // Counted for the user: what the others of its processes have is not to be seen.
    codes: ['ENOMEM'],
    doing: ['iommufd.map'],
    when: (_, machine) => lockedMemory(machine, machine.memory('VmLck')),
    certain: true,
    source: 'drivers/iommu/iommufd/pages.c, incr_user_locked_vm()',
  },
  {
    codes: ['EPERM'],
    syscall: LIBIBVERBS,
    when: (_, machine) =>
      machine.limit('Max locked memory') === 0 && lockedMemory(machine, machine.memory('VmPin')),
    certain: true,
    source: 'mm/mlock.c, can_do_mlock()',
  },
  {
    codes: ['ENOMEM'],
    when: ({ bytes = 1 << 26 }, machine) =>
      ownLimit(machine, 'Max address space', 'VmSize', bytes, '`ulimit -v`, LimitAS= of systemd'),
    certain: true,
    source: 'mm/mmap.c, may_expand_vm()',
  },
  {
    codes: ['ENOMEM'],
    syscall: /^(mmap|malloc)/,
    when: ({ bytes = 1 << 26 }, machine) =>
      ownLimit(machine, 'Max data size', 'VmData', bytes, '`ulimit -d`, LimitDATA= of systemd'),
    certain: true,
    source: 'mm/mmap.c, may_expand_vm()',
  },
  {
    codes: ['ENOMEM'],
    when: ({ bytes = 0 }, machine) => {
      if (machine.sysctl('vm.overcommit_memory') !== 2) return false
      const [limit, used] = [machine.meminfo('CommitLimit'), machine.meminfo('Committed_AS')]
      return (
        limit !== null &&
        used !== null &&
        used + bytes >= limit &&
        `the machine has promised ${used} of ${limit} bytes: \`sysctl vm.overcommit_ratio\`, ` +
          'or vm.overcommit_memory=0'
      )
    },
    certain: true,
    source: 'mm/util.c, __vm_enough_memory()',
  },
  {
    codes: ['ENOMEM'],
    when: ({ bytes }, machine) => cgroupIsFull(fullMemory(machine, bytes), 'bytes'),
    certain: true,
    source: 'mm/memcontrol.c, try_charge_memcg()',
  },
  {
    codes: ['ENOMEM'],
    when: ({ bytes = 0, hugePage }, machine) => {
      const left = machine.meminfo('MemAvailable')
      return (
        left !== null &&
        hugePage === undefined &&
        bytes > left &&
        `${bytes} bytes are wanted, and the machine has ${left} left`
      )
    },
    certain: true,
    source: 'mm/page_alloc.c, __alloc_pages_slowpath()',
  },
  {
    codes: ['ENOMEM'],
    syscall: LIBIBVERBS,
    when: (_, machine) => machine.limit('Max locked memory') === null || machine.mayLockAll,
    hint: 'this process may lock any amount: the machine, or the device, has no more',
    source: 'drivers/infiniband/core/umem.c, __ib_umem_get_va()',
  },
  {
    codes: ['EAGAIN'],
    syscall: RDMA,
    when: ({ syscall }, machine) => {
      // An open device is a handle, and all that is made of it objects.
      const full = fullRdma(machine, syscall === 'ibv_open_device' ? /^hca_handle/ : /^hca_object/)
      return (
        full !== null &&
        `the rdma cgroup lets this process have ${full.limit} ${full.what}, and ${full.used} are ` +
          `in use: trying again does not help; close some, or raise ${full.file}`
      )
    },
    certain: true,
    source: 'kernel/cgroup/rdma.c, rdmacg_try_charge()',
  },
  {
    codes: ['EAGAIN'],
    syscall: LIBIBVERBS,
    hint: 'the device has no more of them (or the rdma cgroup: rdma.max): trying again does not help',
    source: 'drivers/net/ethernet/mellanox/mlx5/core/cmd.c, cmd_status_to_err()',
  },
  {
    codes: ['EAGAIN'],
    syscall: /^pthread_create$/,
    when: (_, machine) => cgroupIsFull(fullPids(machine), 'threads'),
    certain: true,
    source: 'kernel/cgroup/pids.c, pids_can_fork()',
  },
  {
    codes: ['EAGAIN'],
    syscall: /^pthread_create$/,
    hint: 'no thread more: raise `ulimit -u`, or kernel.threads-max, or kernel.pid_max (sysctl)',
    source: 'kernel/fork.c, copy_process()',
  },
]

const kib = (bytes: number) => `${bytes / 1024} KiB`

function manyMappings(now: number, most: number): string {
  return (
    `this process has ${now} memory mappings, of ${most} that it may have: unmap some, or raise ` +
    '`sysctl vm.max_map_count`'
  )
}

function lockedMemory(machine: Machine, used: number, bytes?: number): string | false {
  const limit = machine.limit('Max locked memory')
  if (limit === null || machine.mayLockAll) return false
  if (bytes !== undefined && used + bytes <= limit) return false
  return (
    `the limit of locked memory is ${limit} bytes, and ${used} of them are in use: raise it with ` +
    '`ulimit -l`, LimitMEMLOCK= of systemd, or memlock in /etc/security/limits.conf'
  )
}

function ownLimit(
  machine: Machine,
  limitName: string,
  line: 'VmSize' | 'VmData',
  bytes: number,
  raise: string,
): string | false {
  const limit = machine.limit(limitName)
  const used = limit === null ? 0 : machine.memory(line)
  if (limit === null || used + bytes <= limit) return false
  const what = limitName.replace('Max ', '')
  return `this process has ${used} bytes of ${what}, of ${limit} that it may have: raise ${raise}`
}

function cgroupIsFull(full: Full | null, unit: string): string | false {
  if (full === null) return false
  return `the cgroup has ${full.used} of its ${full.limit} ${unit}: raise ${full.file}`
}
