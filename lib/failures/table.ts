/**
 * What stands behind an error code, and what helps: one table for every call of the
 * package, the kernel's and the libraries'. What is certain is looked for from the top.
 */
import { forbidden } from './forbidden.js'
import { limits } from './limits.js'
import { memory } from './memory.js'
import { rdma } from './rdma.js'
import type { Symptom } from './symptom.js'
import { vfio } from './vfio.js'

export const symptoms: readonly Symptom[] = [...limits, ...rdma, ...memory, ...vfio, ...forbidden]
