/** VFIO over IOMMUFD: one boot of the rig with the modules of test/modules/iommufd. */
import { runInGuest } from './guest.js'

await runInGuest('guest with --iommufd', 'iommufd', ['--iommufd'])
