/** The rig: a virtual machine with a stock kernel and this machine's files. */
export { cachedKernels, fetchKernel, findKernel, type Kernel } from './kernel.js'
export { moduleSets, type ModuleSet } from './modules.js'
export { isPath } from './own-kernel.js'
export { deviceArguments } from './qemu.js'
export { runInRig, type RigOptions, type RigResult } from './rig.js'
export { setUpRig } from './setup.js'
