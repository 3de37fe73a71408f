/**
 * What an old backing is overwritten with: no zeros, no likely payload, and
 * each byte another than its neighbours, so that a shifted write shows.
 */
export const POISON = 0xdbad_0ff5_1de5_c4a7n
