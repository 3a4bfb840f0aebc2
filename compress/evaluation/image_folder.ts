/** Labelled images as a folder: one subfolder a class, its name the label, as CIFAR-10 and ImageNet are unpacked. */
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";

export interface LabelledImages {
  /** In the order of their names. */
  readonly labels: readonly string[];
  /** In the order of their labels, then names. */
  readonly images: readonly { readonly path: string; readonly label: number }[];
}

const IMAGE = /\.(jpe?g|png|webp)$/i;

/**
 * Reads what images there are, not their contents. A folder with a part `test` (beside `train`) stands for that part.
 * @throws {OatmillError} invalid_request when no subfolder has images
 */
export async function readImageFolder(folder: string): Promise<LabelledImages> {
  const labels = await namesIn(folder, (entry) => entry.isDirectory);
  if (labels.includes("test")) return await readImageFolder(join(folder, "test"));
  const byLabel = await Promise.all(labels.map(async (name, label) => {
    const files = await namesIn(join(folder, name), (entry) => entry.isFile && IMAGE.test(entry.name));
    return files.map((file) => ({ path: join(folder, name, file), label }));
  }));
  const images = byLabel.flat();
  if (images.length > 0) return { labels, images };
  throw new OatmillError(
    "invalid_request",
    `Cannot evaluate images of "${folder}": it must have a subfolder of .jpg, .png or .webp files for each class`,
    "images",
  );
}

async function namesIn(folder: string, wanted: (entry: Deno.DirEntry) => boolean): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(folder)) if (wanted(entry)) names.push(entry.name);
  return names.sort();
}
