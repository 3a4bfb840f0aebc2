/** How often an image classifier is right: on the whole, by class, and among its five best labels. */
import { OatmillError } from "../../errors.ts";
import type { LabelledImages } from "./image_folder.ts";
import type { ScoreOptions } from "./score_windows.ts";

/** @returns a score for each label, in the folder's order `[labels]`; the largest is the answer */
export type Classify = (image: Uint8Array, signal?: AbortSignal) => Promise<Float32Array>;

export interface ImageAccuracy {
  readonly accuracy: number;
  /** Share of images whose label is one of the five likeliest; null where there are only five. */
  readonly top5: number | null;
  readonly count: number;
  readonly classes: readonly { readonly label: string; readonly count: number; readonly accuracy: number }[];
}

const TOP = 5;

/** One image in memory at a time. @throws {OatmillError} cancelled, what `classify` throws */
export async function imageAccuracy(
  { labels, images }: LabelledImages,
  classify: Classify,
  { signal, onProgress }: ScoreOptions = {},
): Promise<ImageAccuracy> {
  const counts = labels.map(() => ({ seen: 0, right: 0, near: 0 }));
  for (const [i, { path, label }] of images.entries()) {
    if (signal?.aborted) {
      throw new OatmillError("cancelled", "The evaluation was cancelled", null, { cause: signal.reason });
    }
    const scores = await classify(await Deno.readFile(path), signal);
    const better = scores.filter((s, other) =>
      s > scores[label] || (s === scores[label] && other < label)
    ).length;
    counts[label].seen++;
    counts[label].right += +(better === 0);
    counts[label].near += +(better < TOP);
    onProgress?.(i + 1, images.length);
  }
  const total = (of: "right" | "near") => counts.reduce((n, c) => n + c[of], 0) / images.length;
  return {
    accuracy: total("right"),
    top5: labels.length > TOP ? total("near") : null,
    count: images.length,
    classes: labels.map((label, i) => ({
      label,
      count: counts[i].seen,
      accuracy: counts[i].seen > 0 ? counts[i].right / counts[i].seen : 0,
    })),
  };
}
