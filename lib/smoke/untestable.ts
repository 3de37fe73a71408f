/** What tells "it cannot be tested here" from "it is wrong". */

/**
 * What is missing, not allowed, not connected or in use: found out before anything was
 * tried on it. What fails otherwise, or later, is wrong.
 */
const MISSING: readonly string[] = [
  ...['ERR_NO_DEVICE', 'ENODEV', 'ENXIO', 'ENOENT', 'ERR_NOT_BOUND'],
  ...['ERR_NO_LINK', 'ERR_PORT_DOWN', 'ERR_NO_GID', 'ERR_NO_IOMMU', 'ERR_GROUP_NOT_VIABLE'],
  ...[
    'ERR_VERBS_MISSING',
    'ERR_UNSUPPORTED',
    'ERR_NOT_MAPPABLE',
    'ERR_NOT_MEMORY',
    'ERR_NOT_EXPORTABLE',
  ],
  ...['EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'EACCES', 'EPERM', 'EBUSY'],
]

/** `checked`: an exporter that has not one page is missing, too: no huge pages are reserved. */
export function isMissing(
  error: unknown,
  checked: readonly { readonly error: unknown }[] = [],
): boolean {
  const { code = '' } = (error ?? {}) as { code?: string }
  return (
    MISSING.includes(code) || (code === 'ENOMEM' && checked.some((each) => each.error === error))
  )
}
