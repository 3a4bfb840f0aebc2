/** How alike an artifact's answers are to those of the dense encoder it was made from, on the same inputs. */
import { encoderOf } from "../../engine/encoder.ts";
import { loadEngine } from "../../engine/engine.ts";
import type { Checkpoint, WeightRole } from "../../models/checkpoint.ts";
import type { EncoderModel, EncoderOutput } from "../../models/classifier.ts";
import { EncoderEnds, END_VECTORS } from "../../models/encoder_ends.ts";
import type { Agreement } from "../../models/formats/artifact_header.ts";
import type { PackedModel } from "../../models/packed.ts";
import { normaliseRows, type Residual } from "../forward/dense_forward.ts";
import type { ScoreOptions } from "./score_windows.ts";
import { openValues } from "../work_space.ts";

/** What an encoder says of an input. */
export type Answer = Omit<EncoderOutput, "states" | "width">;

/** @param states hidden states behind the last block */
export async function denseAnswers(states: Residual, checkpoint: Checkpoint): Promise<Answer[]> {
  const { spec } = checkpoint, { encoder } = spec, vectors = new Map<string, Float32Array>();
  if (!encoder) return [];
  for (const role of END_VECTORS.flatMap((name): WeightRole[] => [name, `${name}.bias`])) {
    if (checkpoint.has(role)) vectors.set(role, (await checkpoint.read(role)).data);
  }
  const ends = new EncoderEnds({ ...spec, encoder }, (name) => vectors.get(name) ?? null);
  using source = openValues(states.values);
  const answers: Answer[] = [], size = states.length * spec.hiddenSize;
  for (let i = 0; i < states.sequences; i++) {
    const rows = new Float32Array(size);
    source.read(i * size, rows);
    await normaliseRows(rows, checkpoint);
    answers.push(ends.read(rows));
  }
  return answers;
}

type Input = Parameters<EncoderModel["run"]>[0];

/** The answers of a packed encoder as the engine serves it. */
export async function servedAnswers(
  model: PackedModel,
  inputs: readonly (() => Promise<Input>)[],
  { threads, signal, onProgress }: ScoreOptions & { readonly threads?: number },
): Promise<Answer[]> {
  const engine = await loadEngine(model, { threads });
  try {
    const encoder = encoderOf(engine, { spec: model.spec, imageProcessor: null });
    if (!encoder) throw new RangeError(`Model "${model.name}" is no encoder`);
    const answers: Answer[] = [];
    for (const [i, input] of inputs.entries()) {
      const { pooled, logits } = await encoder.run(await input(), signal);
      answers.push({ pooled, logits });
      onProgress?.(i + 1, inputs.length);
    }
    return answers;
  } finally {
    await engine.close();
  }
}

/** @param text what the inputs are from */
export function agreementOf(wanted: readonly Answer[], found: readonly Answer[], text: string): Agreement {
  const pairs = (of: (answer: Answer) => Float32Array | null) =>
    wanted.map((answer, i) => [of(answer), of(found[i])] as const);
  const logits = pairs((answer) => answer.logits), hasLogits = wanted[0]?.logits != null;
  return {
    inputs: wanted.length,
    text,
    outputs: [
      { name: "pooled", ...difference(pairs((answer) => answer.pooled)) },
      ...hasLogits ? [{ name: "logits", ...difference(logits) }] : [],
    ],
    sameLabel: hasLogits ? logits.filter(([a, b]) => top(a!) === top(b!)).length / logits.length : null,
  };
}

type Pair = readonly [Float32Array | null, Float32Array | null];

function difference(pairs: readonly Pair[]): { readonly error: number; readonly largest: number } {
  let lost = 0, all = 0, largest = 0;
  for (const [wanted, found] of pairs) {
    wanted?.forEach((y, i) => {
      const e = y - found![i];
      lost += e * e;
      all += y * y;
      largest = Math.max(largest, Math.abs(e));
    });
  }
  return { error: all > 0 ? Math.sqrt(lost / all) : 0, largest };
}

/** Index of the largest value. */
const top = (values: Float32Array): number =>
  values.indexOf(values.reduce((a, b) => Math.max(a, b), -Infinity));
