/** A folder's names of classes in terms of a model's. */
import { OatmillError } from "../../errors.ts";

/**
 * For each of a folder's labels the index of the model's logit: by name (case, blanks and signs aside; of synonyms with
 * commas between them each counts), or, when no name is known and there are as many, by position: ImageNet's folders have
 * numbers for names, in the order of the classes.
 * @returns logit indices `[folder labels]`
 * @throws {OatmillError} invalid_request naming a label that the model does not know
 */
export function labelOrder(folder: readonly string[], model: readonly string[]): number[] {
  const index = new Map<string, number>();
  model.forEach((label, i) => {
    for (const name of [label, ...label.split(",")]) if (!index.has(plain(name))) index.set(plain(name), i);
  });
  const found = folder.map((label) => index.get(plain(label)) ?? -1);
  const unknown = found.indexOf(-1);
  if (unknown < 0) return found;
  if (folder.length === model.length && found.every((i) => i < 0)) return folder.map((_, i) => i);
  const known = model.slice(0, 5).map((label) => JSON.stringify(label)).join(", ");
  throw new OatmillError(
    "invalid_request",
    `Cannot compare the folder's label ${
      JSON.stringify(folder[unknown])
    } with the model's ${model.length} labels ` +
      `(${known}${model.length > 5 ? ", ..." : ""}): name the subfolders as the model names its classes`,
    "images",
  );
}

const plain = (label: string): string => label.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");
