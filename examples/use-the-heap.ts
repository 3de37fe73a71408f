/**
 * Allocates from the kernel's system heap and lets a device add up in it: the
 * heap's memory is zeroed, has a name, and is a dma-buf like any other.
 *
 * Needs /dev/dma_heap/system: `npm run rig -- node dist/examples/use-the-heap.js`
 */
import { DmaHeap, heap, MovableBuffer, openEngine } from 'p2pdma'

console.log(`heaps: ${DmaHeap.list().join(', ')}`)
using system = DmaHeap.open('system')
using dmaBuf = await system.alloc(10_000)
console.log(`asked for 10000 bytes, got ${dmaBuf.size} by ${dmaBuf.info().exporter}`)

await using engine = await openEngine('software')
await using importer = engine.importer()
await using buffer = await MovableBuffer.create(4096, heap('system'))
const counter = await importer.attach(buffer)

for (let i = 1; i <= 10; i++) await importer.fetchAdd(counter, 0, i)
const { previous } = await importer.fetchAdd(counter, 0, 0)
console.log(`the device counted to ${previous}`)
if (previous !== 55) process.exitCode = 1
