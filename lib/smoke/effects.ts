/** What a scenario changes outside of this process: none of it happens unasked. */
import { P2pdmaError } from '../errors.js'

/** What each does to others. */
export const EFFECTS = {
  link: 'takes a network link down for a moment',
  reset: 'resets the devices that it was given',
  kill: 'starts a process of its own, and kills it',
  revoke: "switches a device's memory off for a moment",
  fault: 'has a device write where it may not, which the kernel logs',
} as const

export type Effect = keyof typeof EFFECTS

/** Which scenarios do it, by the beginnings of their names; a test compares. */
export const EFFECT_SCENARIOS: Readonly<Record<Effect, readonly string[]>> = {
  link: ['the link goes down and comes up'],
  reset: ['surprise resets of both NICs'],
  kill: ['another peer is killed'],
  revoke: ['the kernel revokes a BAR'],
  fault: ['the IOMMU as a witness'],
}

/** Where those are, for whoever asks for them elsewhere. */
const EFFECT_ENGINES: Readonly<Record<Effect, string>> = {
  link: '--engine vfio, or verbs with both ends here',
  reset: '--engine vfio',
  kill: '--engine verbs with both ends here',
  revoke: '--engine verbs with both ends here',
  fault: '--engine vfio --witness',
}

export const EFFECT_NAMES = Object.keys(EFFECTS) as Effect[]

/** `link,reset`, or `all`. ERR_INVALID_ARG_VALUE for what is no effect. */
export function parseEffects(text: string): Effect[] {
  if (text === 'all') return [...EFFECT_NAMES]
  const names = text.split(',')
  const wrong = names.find((name) => !Object.hasOwn(EFFECTS, name))
  if (wrong === undefined) return [...new Set(names as Effect[])]
  throw new P2pdmaError(
    `--disruptive takes ${EFFECT_NAMES.join(', ')}, not ${JSON.stringify(wrong)}`,
    { code: 'ERR_INVALID_ARG_VALUE', argument: 'disruptive' },
  )
}

/** Why it is not played: what of it nobody has asked for. Null where all of it was. */
export function whyUnasked(effects: readonly Effect[], asked: readonly Effect[]): string | null {
  const missing = effects.filter((effect) => !asked.includes(effect))
  if (missing.length === 0) return null
  const what = missing.map((effect) => EFFECTS[effect]).join(', and ')
  return `it ${what}, which nobody has asked for: --disruptive=${missing.join(',')}`
}

/** What was asked for, and none of these scenarios does: it is to be said that nobody did it. */
export function elsewhere(
  asked: readonly Effect[],
  here: readonly { effects: readonly Effect[] }[],
): { name: string; effects: Effect[]; reason: string }[] {
  const played = new Set(here.flatMap(({ effects }) => effects))
  return asked
    .filter((effect) => !played.has(effect))
    .flatMap((effect) =>
      EFFECT_SCENARIOS[effect].map((name) => ({
        name,
        effects: [effect],
        reason: `this engine does not play it: ${EFFECT_ENGINES[effect]}`,
      })),
    )
}
