/** `eval --images`: how often a classifier of images is right. */
import { type ImageAccuracy, imageAccuracy } from "../compress/evaluation/image_accuracy.ts";
import { readImageFolder } from "../compress/evaluation/image_folder.ts";
import { labelOrder } from "../compress/evaluation/label_order.ts";
import { type OpenedModel, openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { OatmillError } from "../errors.ts";
import { processorOf } from "../vision/processor_of.ts";
import { readImage } from "../vision/read_image.ts";
import { printResult, ProgressBar, table } from "./output.ts";

export interface EvalImagesOptions {
  /** Most images of a class. */
  readonly limit?: number;
  readonly json?: boolean;
}

/** @throws {OatmillError} invalid_request: no such images, a model that does not classify them, other labels */
export async function evalImages(
  path: string,
  folder: string,
  { open, limit, json }: EvalImagesOptions & { readonly open: OpenModelOptions },
): Promise<void> {
  const { labels, images } = await readImageFolder(folder);
  const model = await openModel(path, open);
  const bar = new ProgressBar(), abort = new AbortController(), stop = () => abort.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    const start = performance.now();
    const found = await imageAccuracy(
      { labels, images: firstOfEach(images, limit) },
      classifier(model, labels),
      {
        signal: abort.signal,
        onProgress: (done, total) => bar.show({ phase: "images", done, total }),
      },
    );
    bar.end();
    const seconds = (performance.now() - start) / 1000;
    const { count, accuracy, top5, classes } = found;
    const result = { model: model.name, count, accuracy, top5_accuracy: top5, classes, seconds };
    printResult(result, { json, lines: () => lines(found) });
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
    await model.engine.close();
  }
}

function firstOfEach<I extends { readonly label: number }>(images: readonly I[], limit = Infinity): I[] {
  const seen = new Map<number, number>();
  return images.filter(({ label }) => {
    const count = (seen.get(label) ?? 0) + 1;
    seen.set(label, count);
    return count <= limit;
  });
}

/** Logits in the order of the folder's labels. */
function classifier({ name, encoder }: OpenedModel, labels: readonly string[]) {
  const config = processorOf(name, encoder);
  if (!encoder!.labels) {
    throw new OatmillError("invalid_request", `The model "${name}" has no classifier`, "model");
  }
  const order = labelOrder(labels, encoder!.labels);
  return async (image: Uint8Array, signal?: AbortSignal) => {
    const { logits } = await encoder!.run(await readImage(image, config), signal);
    return Float32Array.from(order, (i) => logits![i]);
  };
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

function lines({ accuracy, top5, count, classes }: ImageAccuracy): string[] {
  return [
    `accuracy  ${percent(accuracy)}  (${count} images)`,
    ...top5 === null ? [] : [`top 5     ${percent(top5)}`],
    ...table([
      ["class", "images", "accuracy"],
      ...classes.map((c) => [c.label, c.count, percent(c.accuracy)]),
    ]),
  ];
}
