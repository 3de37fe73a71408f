/** A backing that tells when its memory has been given back. */
import type { CpuAccessMode } from '../../../kernel/cpu-access.js'
import type { Mapping } from '../../../kernel/mapping.js'
import type { Backing, BackingHolder, Copier, CopyRange, CpuWindow } from '../backing.js'

export class HeldBacking<Owner> implements Backing {
  readonly size: number
  readonly placement: string
  /** Whose it is, once that is known. */
  owner: Owner | null = null
  /** The exporter's own, for who has to know its kind. */
  readonly inner: Backing
  readonly #onFreed: (backing: HeldBacking<Owner>) => void
  #freed: Promise<void> | null = null

  constructor(inner: Backing, onFreed: (backing: HeldBacking<Owner>) => void) {
    this.inner = inner
    this.#onFreed = onFreed
    this.size = inner.size
    this.placement = inner.placement
  }

  get fd(): number {
    return this.inner.fd
  }

  get offset(): number {
    return this.inner.offset
  }

  get isDmaBuf(): boolean {
    return this.inner.isDmaBuf
  }

  get mapping(): Mapping | null {
    return this.inner.mapping
  }

  get dmaMapping(): Mapping | null {
    const { dmaMapping, mapping } = this.inner
    return dmaMapping === undefined ? mapping : dmaMapping
  }

  copyFrom(source: Backing, range?: CopyRange): Promise<void> {
    // The exporter's own kind of backing, where it is one: it keeps what it copies from alive.
    return this.inner.copyFrom(innermost(source), range)
  }

  canCopyFrom(source: Backing): boolean {
    return this.inner.canCopyFrom?.(innermost(source)) ?? true
  }

  canCopyTo(target: Backing): boolean {
    const { inner } = this
    return inner.copyTo !== undefined && (inner.canCopyTo?.(innermost(target)) ?? true)
  }

  copyTo(target: Backing, range?: CopyRange): Promise<void> {
    const pushed = this.inner.copyTo?.(innermost(target), range)
    return pushed ?? Promise.reject(new Error('it does not push'))
  }

  copyNow(source: Backing): boolean {
    return this.inner.copyNow?.(innermost(source)) ?? false
  }

  async populate(): Promise<void> {
    await this.inner.populate?.()
  }

  openCpuWindow(mode: CpuAccessMode): Promise<CpuWindow> {
    return this.inner.openCpuWindow(mode)
  }

  poison(copiers?: readonly Copier[]): Promise<void> {
    return this.inner.poison(copiers)
  }

  countStrayWrites(copiers?: readonly Copier[]): Promise<number> {
    return this.inner.countStrayWrites(copiers)
  }

  heldBy(holder: BackingHolder | null): void {
    this.inner.heldBy?.(holder)
  }

  free(): Promise<void> {
    this.#freed ??= this.inner.free().then(() => this.#onFreed(this))
    return this.#freed
  }
}

function innermost(backing: Backing): Backing {
  return backing instanceof HeldBacking ? backing.inner : backing
}
