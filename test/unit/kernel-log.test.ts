/** Lines of the kernel's log. Its own lines, in the guest: test/kernel/vfio-faults.test.ts. */
import t from 'tap'
import { parseDmarFault } from '../../lib/kernel/dma-fault.js'
import { parseRecord } from '../../lib/kernel/kmsg.js'

void t.test('records', async (t) => {
  t.same(parseRecord('4,1071,98000123,-;DMAR: x; y\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:12.0\n'), {
    level: 4,
    facility: 0,
    sequence: 1071,
    timeUs: 98000123,
    text: 'DMAR: x; y',
  })
  t.match(parseRecord('30,5,1,c,caller=T1;from user space\n'), {
    level: 6,
    facility: 3,
    text: 'from user space',
  })
  t.match(parseRecord('6,6,2,-;\n'), { text: '' })
  for (const bad of ['', 'text', '6,1,2;x', 'x,1,2,-;y']) t.equal(parseRecord(bad), null, bad)
})

void t.test('faults of an Intel IOMMU', async (t) => {
  t.same(
    parseDmarFault(
      'DMAR: [DMA Write NO_PASID] Request device [00:12.0] fault addr 0x10000000 [fault reason 0x05] PTE Write access is not set',
    ),
    {
      device: '0000:00:12.0',
      write: true,
      iova: 0x10000000,
      reason: 'PTE Write access is not set',
    },
  )
  t.match(
    parseDmarFault(
      'DMAR: [DMA Read PASID 0x1] Request device [0001:3a:00.1] fault addr 0xfffffffff000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear',
    ),
    { device: '0001:3a:00.1', write: false, iova: 0xfffffffff000, reason: /^SM: Present/ },
  )
  t.match(
    parseDmarFault(
      'DMAR: [DMA Read] Request device [00:12.0] PASID ffffffff fault addr feed0000 [fault reason 06] ',
    ),
    { write: false, iova: 0xfeed0000, reason: 'fault reason 0x06' },
    'as kernels before 5.17 wrote it',
  )
})

void t.test('faults of an AMD IOMMU', async (t) => {
  t.same(
    parseDmarFault(
      'AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:41:00.0 domain=0x002b address=0x7f001000 flags=0x0020]',
    ),
    {
      device: '0000:41:00.0',
      write: true,
      iova: 0x7f001000,
      reason: 'IO_PAGE_FAULT, flags 0x0020',
    },
  )
  t.match(
    parseDmarFault(
      'vfio-pci 0000:41:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x002b address=0x7f001000 flags=0x0000]',
    ),
    { device: '0000:41:00.0', write: false },
  )
  t.match(
    parseDmarFault(
      'AMD-Vi: Event logged [IO_PAGE_FAULT device=41:00.0 domain=0x002b address=0x1 flags=0x0020]',
    ),
    { device: '0000:41:00.0' },
  )
})

void t.test('lines that tell of no DMA fault', async (t) => {
  for (const line of [
    '',
    'DMAR: IOMMU enabled',
    'DMAR: DRHD: handling fault status reg 2',
    'DMAR: [INTR-REMAP] Request device [f0:1f.0] fault index 0x0 [fault reason 0x25]',
    'dmar_fault: 12 callbacks suppressed',
    'AMD-Vi: Event logged [IO_PAGE_FAULT device=00:14.0 domain=0x0 address=0xfd flags=0x0008]',
    'AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x002b address=0x7f001000 flags=0x0000]',
    'AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=00:00.0 address=0xfdf8020200 flags=0x0]',
  ]) {
    t.equal(parseDmarFault(line), null, line)
  }
  for (const bad of [undefined, null, 5, {}]) {
    t.throws(() => parseDmarFault(bad as never), { code: 'ERR_INVALID_ARG_TYPE', argument: 'line' })
  }
})
