/** `logits`: what the model says after some tokens, or of a text or an image, for oracles and debugging. */
import { type OpenedModel, openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { OatmillError } from "../errors.ts";
import type { EncoderModel } from "../models/classifier.ts";
import { processorOf } from "../vision/processor_of.ts";
import { readImage } from "../vision/read_image.ts";
import { printResult, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface LogitsOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly autotune?: boolean;
  readonly ids?: readonly number[];
  /** File of an image. */
  readonly image?: string;
  readonly all?: boolean;
  readonly json?: boolean;
}

/** @throws {OatmillError} invalid_request: neither ids nor an image, or not what the model reads */
export async function logits(path: string, options: LogitsOptions): Promise<void> {
  const model = await openModel(path, {
    values: options.values,
    threads: options.threads,
    tuning: tuningOf(options),
  });
  try {
    if (model.encoder) await encoderLogits(model, model.encoder, options);
    else await decoderLogits(model, options);
  } finally {
    await model.engine.close();
  }
}

async function decoderLogits({ engine, tokenizer }: OpenedModel, options: LogitsOptions): Promise<void> {
  const { all = false } = options, { vocabSize } = engine, ids = idsOf(options, vocabSize);
  const values = await engine.logits(ids, all ? { from: 0 } : {});
  const rows = Array.from(
    { length: values.length / vocabSize },
    (_, i) => values.subarray(i * vocabSize, (i + 1) * vocabSize),
  );
  const lines = () =>
    table([
      ["id", "logit", "token"],
      ...best(rows.at(-1)!).map((id) => [id, rows.at(-1)![id], tokenizer?.tokenText(id) ?? ""]),
    ]);
  printResult({ ids, logits: all ? rows : rows[0] }, { json: options.json, lines });
}

/** Of the whole input: the classes' logits, null in a model without a classifier, and the vector behind them. */
async function encoderLogits(
  { name, engine }: OpenedModel,
  encoder: EncoderModel,
  options: LogitsOptions,
): Promise<void> {
  const { pooled, logits, states } = await encoder.run(
    options.image === undefined
      ? { ids: idsOf(options, engine.vocabSize) }
      : await readImage(await Deno.readFile(options.image), processorOf(name, encoder)),
  );
  const { labels } = encoder, { ids, image, all } = options;
  const lines = () =>
    logits
      ? table([["label", "logit"], ...best(logits).map((i) => [labels?.[i] ?? String(i), logits[i]])])
      : [
        `pooled  ${[...pooled.subarray(0, 8)].map((x) => x.toPrecision(4)).join(" ")} ... (${pooled.length})`,
      ];
  const result = { ...image === undefined ? { ids } : { image }, labels, logits, pooled };
  printResult(all ? { ...result, states } : result, { json: options.json, lines });
}

function idsOf({ ids }: LogitsOptions, vocabSize: number): readonly number[] {
  if (!ids) {
    throw new OatmillError(
      "invalid_request",
      "The model reads text: give its tokens with --ids, as in 1,2,3",
    );
  }
  const outside = ids.find((id) => id >= vocabSize);
  if (outside === undefined) return ids;
  throw new OatmillError(
    "invalid_request",
    vocabSize > 0
      ? `Token ${outside} is not below ${vocabSize}`
      : "The model reads images: give one with --image FILE",
  );
}

/** The ten largest, by index. */
const best = (logits: Float32Array): number[] =>
  [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 10);
