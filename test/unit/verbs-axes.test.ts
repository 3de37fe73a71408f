/** Who moves, by what is known of exporters and NICs: the hardware that the rig cannot have. */
import t from 'tap'
import { exporterMoves, nicFollows, whoMoves } from '../../lib/engines/verbs/move-facts.js'
import type { VerbsDevice } from '../../lib/kernel/verbs/index.js'
import { describeAxes } from '../../lib/smoke/axes.js'

/** Only what is asked of it. */
function fakeNic(odp: boolean): Pick<VerbsDevice, 'name' | 'attributes'> {
  const attributes = () => ({ odp: { supported: odp } }) as ReturnType<VerbsDevice['attributes']>
  return { name: 'fake_0', attributes }
}

const exporter = (placement: string, name: string) => exporterMoves({ placement, fd: -1 }, name)

t.test('what exporters do', (t) => {
  for (const [placement, name, holds] of [
    ['udmabuf', 'udmabuf', false],
    ['heap:system', 'system', false],
    ['heap:default_cma_region', 'default_cma_region', false],
    ['vfio-bar:0000:03:00.0', 'vfio_pci_core', false],
    ['drm:vgem', 'drm', false],
    ['drm:amdgpu', 'drm', true],
    ['drm:xe', 'drm', true],
    ['drm:nouveau', 'drm', null],
    // Nobody says which driver made it.
    ['somebody', 'drm', null],
    ['somebody', 'p2pdma_mover', true],
    ['somebody', 'i915', null],
    ['somebody', '', null],
    // A name that every object has.
    ['somebody', 'constructor', null],
    ['drm:constructor', 'drm', null],
  ] as const) {
    t.equal(exporter(placement, name).holds, holds, `${placement}, ${name}`)
  }
  t.end()
})

t.test('what NICs do', (t) => {
  for (const [driver, odp, holds] of [
    ['mlx5_core', true, true],
    ['mlx5_core', false, false],
    ['efa', true, false],
    ['bnxt_en', false, false],
    ['ice', false, false],
    ['something', true, null],
    ['constructor', true, null],
    [null, true, null],
  ] as const) {
    t.equal(nicFollows(fakeNic(odp), driver).holds, holds, `${driver}, ODP ${odp}`)
  }
  t.end()
})

t.test('both together', (t) => {
  const amdgpu = exporter('drm:amdgpu', 'drm')
  const kernel = whoMoves(amdgpu, nicFollows(fakeNic(true), 'mlx5_core'))
  t.match(kernel, { mover: 'kernel', decidedBy: /amdgpu moves .*; mlx5 follows/ })
  t.match(whoMoves(amdgpu, nicFollows(fakeNic(true), 'efa')), {
    mover: 'us',
    decidedBy: /amdgpu moves .*; efa pins/,
  })
  t.match(whoMoves(amdgpu, nicFollows(fakeNic(true), null)), {
    mover: 'us',
    decidedBy: /not known/,
  })
  const udmabuf = exporter('udmabuf', 'udmabuf')
  t.match(whoMoves(udmabuf, nicFollows(fakeNic(true), 'mlx5_core')), {
    mover: 'us',
    decidedBy: /^udmabuf never moves its buffers: [^;]*$/,
  })
  const axes = { device: 'fake_0', exporter: 'drm:amdgpu', registration: 'dma-buf' } as const
  t.match(
    describeAxes({ ...axes, ...kernel, reason: null }),
    /^drm:amdgpu on fake_0: registration dma-buf; mover kernel, decided by: amdgpu moves/,
  )
  t.end()
})
