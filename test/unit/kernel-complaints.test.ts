/** What the kernel complains of: texts as kernels print them. Its own, in the guest: test/rig/complaints.test.ts. */
import t from 'tap'
import { complaintIn, KernelComplaints } from '../../lib/kernel/kernel-complaints.js'

const WARNING = `[  101.000001] p2pdma_mover: something else
[  101.500001] ------------[ cut here ]------------
[  101.500101] refcount_t: underflow; use-after-free.
[  101.500201] WARNING: lib/refcount.c:28 at refcount_warn_saturate+0xba/0x110, CPU#1: insmod/214
[  101.500301] Modules linked in: rdma_rxe(OE) vgem
[  101.500401] CPU: 1 UID: 0 PID: 214 Comm: insmod Tainted: G           OE       7.3.4+deb13-amd64 #1
[  101.501401] RIP: 0010:refcount_warn_saturate+0xba/0x110
[  101.502401] Call Trace:
[  101.502501]  <TASK>
[  101.502601]  do_init_module+0x60/0x230
[  101.502701]  </TASK>
[  101.502801] ---[ end trace 0000000000000000 ]---
[  101.502901] rxe0: qp#17 rxe_post_send: qp not ready to send`

const HUNG = `[  242.717000] INFO: task rmmod:310 blocked for more than 120 seconds.
[  242.717100]       Not tainted 7.3.4+deb13-amd64 #1
[  242.717200] "echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
[  242.717300] task:rmmod           state:D stack:0     pid:310   tgid:310   ppid:1      task_flags:0x400100
[  242.717400] Call Trace:
[  242.717500]  <TASK>
[  242.717600]  __schedule+0x4f2/0x1500
[  242.717700]  </TASK>
[  242.717800] INFO: task rmmod:310 is blocked on a mutex likely owned by task sh:12.
[  242.900000] INFO: task sh:12 blocked for more than 120 seconds.`

const LOCKDEP = `======================================================
WARNING: possible circular locking dependency detected
7.3.4 #1 Not tainted
------------------------------------------------------
node/201 is trying to acquire lock:
ffff888004c0a0a8 (reservation_ww_class_mutex){+.+.}-{3:3}, at: rxe_dmabuf_map+0x20/0x90
 *** DEADLOCK ***
stack backtrace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 </TASK>
e1000e 0000:00:11.0 eth0: NIC Link is Up`

const KASAN = `==================================================================
BUG: KASAN: slab-use-after-free in mover_work+0x52/0x1a0 [p2pdma_mover]
Read of size 8 at addr ffff888005b4a018 by task kworker/1:2/88

Call Trace:
 <TASK>
 </TASK>
`

const OOPS = `BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor read access in kernel mode
Oops: Oops: 0000 [#1] SMP NOPTI
CPU: 0 UID: 0 PID: 12 Comm: sh Not tainted 7.3.4+deb13-amd64 #1
---[ end trace 0000000000000000 ]---
Kernel panic - not syncing: Fatal exception`

/** One line each, as it comes from the code that is named in lib/kernel/kernel-complaints.ts. */
const complaints = [
  'WARNING: CPU: 0 PID: 88 at drivers/dma-buf/dma-resv.c:268 dma_resv_add_fence+0x1f0/0x200',
  'WARNING: drivers/iommu/intel/iommu.c:1600 at __domain_mapping+0x2b0/0x2c0, CPU#0: node/201',
  'WARNING: suspicious RCU usage',
  'WARNING: inconsistent lock state',
  'BUG: scheduling while atomic: node/201/0x00000002',
  'BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585',
  'BUG: Bad page state in process node  pfn:12345',
  'BUG: Bad page map in process node  pte:8000000012345067 pmd:04d0f067',
  'BUG: Bad rss-counter state mm:00000000f1d0a111 type:MM_FILEPAGES val:1 Comm:node Pid:201',
  'BUG: non-zero pgtables_bytes on freeing mm: 4096',
  'BUG: KFENCE: out-of-bounds read in mover_work+0x52/0x1a0',
  'BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!',
  'watchdog: BUG: soft lockup - CPU#1 stuck for 134s! [kworker/1:2:88]',
  'watchdog: Watchdog detected hard LOCKUP on cpu 0',
  'infiniband rxe0: BUG: RESTRACK detected leak of resources',
  'BUG kmalloc-64 (Tainted: G    B   OE     ): Poison overwritten',
  'BUG rxe-mr (Not tainted): Objects remaining in rxe-mr on __kmem_cache_shutdown()',
  'kernel BUG at mm/slub.c:563!',
  'Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP',
  'Oops: invalid opcode: 0000 [#1] SMP NOPTI',
  'Kernel panic - not syncing: Fatal exception in interrupt',
  'INFO: task kworker/u8:3:77 blocked for more than 120 seconds.',
  'INFO: trying to register non-static key.',
  'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:',
  'rcu: INFO: rcu_preempt self-detected stall on CPU',
  'INFO: rcu_tasks detected stalls on tasks:',
  'rcu: rcu_preempt kthread starved for 5250 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=0',
  'UBSAN: array-index-out-of-bounds in drivers/infiniband/sw/rxe/rxe_mr.c:120:9',
  'UBSAN: shift-out-of-bounds in /tmp/modules/rxe_dmabuf.c:77:14',
  'refcount_t: addition on 0; use-after-free.',
  'list_del corruption. prev->next should be ffff888004c0a0a8, but was dead000000000100',
  'DMA-API: e1000e 0000:00:11.0: device driver has pending DMA allocations while released from device [count=2]',
  'e1000e 0000:00:11.0: DMA-API: device driver failed to check map error',
  'unregister_netdevice: waiting for p2p0 to become free. Usage count = 3',
  'kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)',
]

/** They warn, inform, or have the words in them. */
const others = [
  '',
  '------------[ cut here ]------------',
  '---[ end trace 0000000000000000 ]---',
  'rxe0: qp#17 rxe_post_send: qp not ready to send',
  'rxe0: qp#36 make_send_cqe: non-flush error status = 10',
  'DMAR: [DMA Write NO_PASID] Request device [00:12.0] fault addr 0x10000000 [fault reason 0x05] PTE Write access is not set',
  'pcieport 0000:00:18.0: AER: Correctable error message received from 0000:01:00.0',
  'vfio-pci 0000:01:00.0: PCIe Bus Error: severity=Correctable, type=Physical Layer, (Receiver ID)',
  'pcieport 0000:00:18.0: AER: device recovery failed',
  'Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!',
  'x86/mm: Checked W+X mappings: passed, no W+X pages found.',
  'tsc: Unable to calibrate against PIT',
  'rcu: Preemptible hierarchical RCU implementation.',
  'rcu: RCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=2.',
  'rcu_tasks_wait_gp: rcu_tasks grace period 1 is 10001 jiffies old.',
  'rdma_rxe: loading out-of-tree module taints kernel.',
  'workqueue: mover_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND',
  'node invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0',
  'ACPI BIOS Error (bug): Could not resolve symbol',
  '[Firmware Bug]: TSC doesn’t count with P0 frequency!',
  'DMA-API: preallocated 65536 debug entries',
  'DMA-API: debugging enabled by kernel config',
  'Loaded BUG: nothing',
  'INFO: everything is well',
]

void t.test('which lines complain', async (t) => {
  for (const line of complaints) {
    t.equal(complaintIn(line), line)
    t.equal(complaintIn(`[    5.140900] ${line}`), line, 'as a console has it')
    t.equal(complaintIn(`<4>[ 1234.140900][  T201] ${line}\r`), line, 'raw, with its caller')
    t.match(KernelComplaints.in(line), [{ summary: line }])
  }
  for (const line of others) t.equal(complaintIn(line), null, line)
})

void t.test('a warning: from its frame’s beginning to its end', async (t) => {
  const [found, ...more] = KernelComplaints.in(WARNING)
  t.equal(more.length, 0)
  t.equal(
    found?.summary,
    'refcount_t: underflow; use-after-free. WARNING: lib/refcount.c:28 at refcount_warn_saturate+0xba/0x110, CPU#1: insmod/214',
  )
  t.equal(found?.lines.length, 11)
  t.match(found?.lines.at(-1), /end trace/)
  t.match(found?.lines.at(5), /^RIP: 0010:refcount_warn/, 'without the time')
})

void t.test('a warning whose frame the console did not show', async (t) => {
  const log = WARNING.replace(/.*cut here.*\n/, '').replace(/.*end trace.*\n/, '')
  const found = KernelComplaints.in(log)
  t.match(found, [{ summary: /^refcount_t: .* WARNING: lib.refcount\.c:28 at / }])
  t.equal(found.length, 1)
})

void t.test('a UBSAN report', async (t) => {
  const log = `------------[ cut here ]------------
UBSAN: shift-out-of-bounds in drivers/x.c:77:14
shift exponent 64 is too large for 64-bit type 'long long unsigned int'
CPU: 0 UID: 0 PID: 12 Comm: sh Not tainted
Call Trace:
---[ end trace ]---
something else`
  const found = KernelComplaints.in(log)
  t.match(found, [{ summary: 'UBSAN: shift-out-of-bounds in drivers/x.c:77:14' }])
  t.equal(found[0]?.lines.length, 6)
})

void t.test('reports without that frame', async (t) => {
  t.match(
    KernelComplaints.in(HUNG).map(({ summary, lines }) => [summary, lines.length]),
    [
      ['INFO: task rmmod:310 blocked for more than 120 seconds.', 8],
      ['INFO: task sh:12 blocked for more than 120 seconds.', 1],
    ],
  )
  const [lockdep] = KernelComplaints.in(LOCKDEP)
  t.equal(lockdep?.summary, 'WARNING: possible circular locking dependency detected')
  t.match(lockdep?.lines.at(-1), /<\/TASK>/)
  t.match(lockdep?.lines.join('\n'), /DEADLOCK/)
  t.match(KernelComplaints.in(KASAN), [{ summary: /^BUG: KASAN: slab-use-after-free in mover_/ }])
})

void t.test('an oops is one complaint, the panic after it another', async (t) => {
  const found = KernelComplaints.in(OOPS)
  t.match(found, [{ summary: /^BUG: kernel NULL/ }, { summary: /^Kernel panic/ }])
  t.equal(found.length, 2)
  t.match(
    found[0]?.lines,
    ['', '', /^Oops: Oops: 0000/].map((each) => each || String),
  )
})

void t.test('piece by piece', async (t) => {
  const complaints = new KernelComplaints()
  t.same(complaints.take(), [])
  complaints.add('------------[ cut here ]------------', 1_000_000)
  complaints.add('once\\x0atwice', 1_000_100)
  complaints.add('WARNING: a.c:1 at f+0x1/0x2, CPU#0: sh/12', 1_000_200)
  complaints.add('---[ end trace 0000000000000000 ]---', 9_000_000)
  complaints.add('BUG: scheduling while atomic: node/201/0x00000002', 9_100_000)
  complaints.add('Modules linked in: vgem', 9_200_000)
  complaints.add('much later', 10_000_000)
  t.match(complaints.take(), [
    { summary: 'once twice WARNING: a.c:1 at f+0x1/0x2, CPU#0: sh/12' },
    { lines: ['BUG: scheduling while atomic: node/201/0x00000002', 'Modules linked in: vgem'] },
  ])
  t.same(complaints.take(), [], 'each is told once')
})

void t.test('what is left of a warning, and one without an end', async (t) => {
  const cut = '------------[ cut here ]------------'
  t.match(KernelComplaints.in(cut), [{ summary: 'a warning whose lines are lost' }])
  t.match(KernelComplaints.in(`${cut}\n${cut}\nWARNING: x`), [{}, { summary: 'WARNING: x' }])
  const endless = `${cut}\nWARNING: x\n${'line\n'.repeat(500)}BUG: y`
  const found = KernelComplaints.in(endless)
  t.match(found, [{ summary: 'WARNING: x' }, { summary: 'BUG: y' }])
  t.equal(found[0]?.lines.length, 200)
})

void t.test('no strings', async (t) => {
  for (const bad of [undefined, null, 5, {}]) {
    const wanted = { code: 'ERR_INVALID_ARG_TYPE', argument: 'line' }
    t.throws(() => complaintIn(bad as never), wanted)
    t.throws(() => new KernelComplaints().add(bad as never), wanted)
  }
})
