/** Why an IOMMU group cannot be had. */
import { P2pdmaError } from '../../errors.js'
import { inTheWay } from './sysfs.js'

/** ERR_GROUP_NOT_VIABLE, with the names of those in the way. */
export function notViableError(group: string, cause?: unknown): P2pdmaError {
  const others = inTheWay(group)
  const who = others.length === 0 ? 'somebody who has left' : others.join(', ')
  return new P2pdmaError(
    `IOMMU group ${group} is not viable: in the way ${others.length > 1 ? 'are' : 'is'} ${who}`,
    {
      code: 'ERR_GROUP_NOT_VIABLE',
      hint: 'bind every device of the group, or unbind its driver: `p2pdma bind`',
      cause,
    },
  )
}
