/**
 * Measures one library: `child.js URL quick|whole`. For each name of a figure
 * that it is sent it answers with the number, or says why there is none.
 */
import type { Library } from '../library.js'
import { figures, Subjects } from './figures.js'

export type Answer = { value: number } | { error: string }

const [, , url = '', scale] = process.argv

async function answer(name: string, subjects: Promise<Subjects>): Promise<Answer> {
  try {
    const figure = figures.find((each) => each.name === name)
    if (figure === undefined) throw new Error('no such figure')
    return { value: await figure.measure(await subjects) }
  } catch (error) {
    return { error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

const loaded = import(url).then((library: Library) => new Subjects(library, url, scale === 'quick'))
loaded.catch(() => {})
process.on('message', (name: string) => {
  void answer(name, loaded).then((each) => process.send!(each))
})
// Whoever asks is gone.
process.on('disconnect', () => process.exit())
