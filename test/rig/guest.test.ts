/** What needs a real kernel: the tests of test/kernel, and every example. */
import { runInGuest } from './guest.js'

/** QEMU's null-co: 64 MiB of zeros. */
const NOTHING = 'size=67108864,read-zeroes=on'

await runInGuest('guest', 'rig', [
  // Graphics devices for exporters.test.ts.
  ...['--device', 'virtio-gpu-pci', '--device', 'bochs-display'],
  // A disk for bind.test.ts and vfio-nvme.test.ts: nothing, over which QEMU keeps what is written
  // in a file that has no name.
  ...['--device', 'nvme,serial=p2pdma,drive=disk'],
  ...['--device', `-drive if=none,id=disk,driver=null-co,${NOTHING},snapshot=on`],
  // Two more NICs for vfio-lost.test.ts, one behind a root port, where the kernel sees PCIe
  // errors. On a hub of their own: QEMU keeps a hub's frames for each port that is off.
  ...['--device', '-netdev hubport,id=lost,hubid=1'],
  ...['--device', '-netdev hubport,id=partner,hubid=1'],
  ...['--device', 'pcie-root-port,id=rp,chassis=9,addr=0x18'],
  ...['--device', 'e1000e,bus=rp,netdev=lost,mac=52:54:00:12:34:58'],
  ...['--device', 'e1000e,addr=0x19,netdev=partner,mac=52:54:00:12:34:59'],
])
