// Prints 1 where the headers of libibverbs and librdmacm are, 0 elsewhere: then
// the second addon is left out of the build (binding.gyp).
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export function hasVerbs() {
  const compiler = process.env.CXX ?? 'c++'
  const { status } = spawnSync(`${compiler} -E -x c++ -o /dev/null -`, {
    shell: true,
    input: '#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n',
  })
  return status === 0
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(hasVerbs() ? 1 : 0)
