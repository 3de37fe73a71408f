// Prints 1 where the second addon can be built, 0 elsewhere: then it is left out of
// the build (binding.gyp). It needs headers alone: what they declare is opened at run time.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const headers = ['infiniband/verbs.h', 'rdma/rdma_cma.h', 'rdma/ib_user_ioctl_cmds.h']
const includes = headers.map((name) => `#include <${name}>\n`).join('')

/** The youngest of what the addon calls: rdma-core 34 and Linux 5.12 have it. */
const uses = `
auto register_dmabuf = &ibv_reg_dmabuf_mr;
auto method = UVERBS_METHOD_REG_DMABUF_MR;
`

function compiles(text) {
  const compiler = process.env.CXX ?? 'c++'
  const { status } = spawnSync(`${compiler} -fsyntax-only -x c++ -`, { shell: true, input: text })
  return status === 0
}

/** null, or why the second addon cannot be built. */
export function whyNoVerbs() {
  if (compiles(includes + uses)) return null
  const what = 'the headers of libibverbs and librdmacm'
  return compiles(includes) ? `${what} are older than rdma-core 34` : `${what} are missing`
}

export const hasVerbs = () => whyNoVerbs() === null

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(hasVerbs() ? 1 : 0)
