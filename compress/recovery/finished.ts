/** Trained values that are final, as a later run finds them. */
import type { Journal } from "../resume/journal.ts";
import { SavedStreams, type StreamParts } from "../resume/streams.ts";
import type { SharedFloats } from "./parameters.ts";
import type { Course } from "./state.ts";

const streams = (journal: Journal, subject: number) =>
  new SavedStreams<Course>({ journal, name: `recovered.${subject}`, costShare: Infinity });

const partsOf = (vectors: readonly SharedFloats[]): StreamParts =>
  Object.fromEntries(vectors.map((values, i) => [i, { values, length: values.length }]));

/** @param subject what was trained: with blockwise the block */
export async function keepFinished(
  journal: Journal,
  subject: number,
  { vectors, course }: { readonly vectors: readonly SharedFloats[]; readonly course: Course },
): Promise<void> {
  await streams(journal, subject).save(course.step, partsOf(vectors), course)?.commit();
}

/** Fills the vectors; null, and nothing is changed, when they were not finished. */
export const restoreFinished = (
  journal: Journal,
  subject: number,
  vectors: readonly SharedFloats[],
): Course | null => streams(journal, subject).restore(partsOf(vectors))?.rest ?? null;
