import type { Backing } from './backing.js'

/**
 * Backings that a device may still reach: never freed, never reused. The
 * strong reference is the point.
 */
const held = new Set<Backing>()

export function quarantine(backing: Backing): void {
  held.add(backing)
}

export function isQuarantined(backing: Backing): boolean {
  return held.has(backing)
}

/** What has been quarantined since the process started. */
export function quarantined(): readonly Backing[] {
  return [...held]
}
