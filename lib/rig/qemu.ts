/** The virtual machine's hardware, as QEMU's command line. */
import { accessSync, constants, readFileSync } from 'node:fs'
import type { Kernel } from './kernel.js'

export type Accelerator = 'kvm' | 'tcg'

export interface GuestMachine {
  kernel: Kernel
  /** Where the guest's console goes. */
  log: string
  /** The host's folder that the guest writes through to. */
  folder: string
  smp: number
  /** QEMU's spelling: `4G`. */
  memory: string
  accelerator: Accelerator
  /** Whether the guest's clock counts its instructions; emulated, and with one CPU. */
  icount: boolean
  /** Whether emulated CPUs have a thread each, or take turns on one: see `tcgThreads()`. */
  threads: 'single' | 'multi'
  /** More of QEMU's arguments. */
  devices: readonly string[]
  /** Whether the memory device and the two NICs are there. */
  defaultDevices: boolean
  /** Whether one PCI device may reach another's memory, and there is one to spare for it. */
  peerToPeer: boolean
}

/** The ports between guest and host, whose sockets QEMU inherits as `firstPort` and so on. */
export const ports = ['control', 'stdout', 'stderr'] as const

/** What QEMU inherits beside its standard streams: the initial root's file, then the ports. */
const initramfs = 3
const firstPort = 4

/**
 * Whether KVM is worth a try: that /dev/kvm exists says nothing, it may hang
 * where the CPU has no virtualization.
 */
export function kvmLooksUsable(): boolean {
  try {
    if (!/^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))) return false
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

/**
 * By what `--version` says. Before 8.2 QEMU gives a CPU another map of the machine while it is
 * in the middle of an access by the old one (softmmu/physmem.c, tcg_commit()): where one CPU
 * maps a BAR, what another writes to a device in that moment may reach none. A guest has hung in
 * qi_submit_sync() while QEMU was idle, which fits: the IOMMU was never told of an invalidation.
 */
export function tcgThreads(said: string): 'single' | 'multi' {
  const [, major = '0', minor = '0'] = /version (\d+)\.(\d+)/.exec(said) ?? []
  return Number(major) * 100 + Number(minor) < 802 ? 'single' : 'multi'
}

export function qemuArguments(machine: GuestMachine): string[] {
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...accelerator(machine),
    ...['-smp', String(machine.smp), '-m', machine.memory],
    ...['-device', 'intel-iommu,intremap=on'],
    ...['-kernel', machine.kernel.image, '-initrd', `/proc/self/fd/${initramfs}`],
    ...['-append', kernelCommandLine],
    ...['-chardev', `file,id=log,path=${escape(machine.log)}`, '-serial', 'chardev:log'],
    ...['-device', 'virtio-serial-pci'],
    ...ports.flatMap((name, i) => port(name, firstPort + i)),
    ...['-device', 'virtio-rng-pci'],
    ...share('root', '/', true),
    ...share('modules', machine.kernel.modules, true),
    ...share('folder', machine.folder, false),
    ...(machine.defaultDevices ? defaultDevices : []),
    ...(machine.peerToPeer ? spareDevice : []),
    ...machine.devices,
  ]
}

/** `--device` takes what follows `-device`, or, where it begins with `-`, any of QEMU's arguments. */
export function deviceArguments(value: string): string[] {
  const words = value.trim().split(/\s+/)
  return words[0]?.startsWith('-') === true ? words : ['-device', ...words]
}

const kernelCommandLine = [
  'console=ttyS0 loglevel=5 rdinit=/init intel_iommu=on',
  // A kernel fault ends the run, so that no test passes over it (-no-reboot ends QEMU).
  'panic=-1 oops=panic softlockup_panic=1',
  // On a busy host the watchdog of clocks would find faults that are none, and take the clock away;
  // those of CPUs have as much patience as the one of tasks (120 s), and no counter to work with.
  'tsc=reliable watchdog_thresh=60 nmi_watchdog=0 rcupdate.rcu_cpu_stall_timeout=120',
  // They cost time and protect nobody here.
  'mitigations=off',
  // guest-init.sh brings up the others: while it boots the kernel patches itself most, which QEMU
  // before 8.1 gets wrong when it emulates several CPUs (a stale int3, then a panic).
  'maxcpus=1',
].join(' ')

/** The memory device and the two NICs, as the guest's kernel names them. */
export const defaultAddresses = ['0000:00:10.0', '0000:00:11.0', '0000:00:12.0'] as const

/** At fixed addresses, so that tests and users can name them. */
const defaultDevices = [
  ...['-object', 'memory-backend-ram,id=p2pdma-memory,size=64M,share=on'],
  ...['-device', 'ivshmem-plain,memdev=p2pdma-memory,addr=0x10'],
  ...['-netdev', 'hubport,id=p2pdma-nic0,hubid=0', '-netdev', 'hubport,id=p2pdma-nic1,hubid=0'],
  ...['-device', 'e1000e,netdev=p2pdma-nic0,mac=52:54:00:12:34:56,addr=0x11'],
  ...['-device', 'e1000e,netdev=p2pdma-nic1,mac=52:54:00:12:34:57,addr=0x12'],
]

/** What soft-RoCE attaches dma-bufs to: it has no PCI device, and a BAR is imported by none else. */
const spareDevice = ['-device', 'pci-testdev,addr=0x13']

/**
 * Without the flags that promise a fast `rep movsb`: emulated it goes byte by
 * byte, and libc and the kernel, which believe the flags, copy a few times
 * slower with it than with vector moves. And without protection keys: V8 takes one
 * (pkey_alloc(2)), so that the kernel writes PKRU at each switch between Node and one of
 * its own threads, and QEMU forgets all of its translations at each such write
 * (arch/x86/kernel/process_64.c, x86_pkru_load(); QEMU: helper_wrpkru()).
 */
const EMULATED_CPU = 'max,-erms,-fsrm,-pku'

/**
 * The kernel lets peers through a host bridge that it knows, or with a CPU of
 * AMD's families from Zen on (drivers/pci/p2pdma.c, cpu_supports_p2pdma()). Under
 * KVM it is the host's CPU that counts.
 */
const PEER_TO_PEER_CPU = `${EMULATED_CPU},vendor=AuthenticAMD,family=23`

function accelerator({ accelerator, peerToPeer, icount, threads }: GuestMachine): string[] {
  if (accelerator === 'kvm') {
    return ['-machine', 'q35,kernel-irqchip=split', '-accel', 'kvm', '-cpu', 'host']
  }
  const cpu = ['-machine', 'q35', '-cpu', peerToPeer ? PEER_TO_PEER_CPU : EMULATED_CPU]
  return icount
    ? [...cpu, '-accel', 'tcg,thread=single', '-icount', 'shift=0,sleep=off']
    : [...cpu, '-accel', `tcg,thread=${threads}`]
}

/** A port over a socket that QEMU inherits: it needs no name and no folder. */
function port(name: string, fd: number): string[] {
  return [
    ...['-chardev', `socket,id=${name},fd=${fd}`],
    ...['-device', `virtserialport,chardev=${name},name=${name}`],
  ]
}

function share(tag: string, path: string, readonly: boolean): string[] {
  // security_model=none: what the guest's root writes belongs to who runs QEMU.
  const how = `security_model=none,multidevs=remap,readonly=${readonly ? 'on' : 'off'}`
  return [
    ...['-fsdev', `local,id=${tag},path=${escape(path)},${how}`],
    ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ]
}

/** QEMU doubles a comma that is part of a value. */
function escape(path: string): string {
  return path.replaceAll(',', ',,')
}
