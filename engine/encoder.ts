/** An engine's encoder as callers want it: images or token ids in; states, one vector and logits out. */
import { OatmillError } from "../errors.ts";
import type { EncoderModel, EncoderOutput, Pixels, TokenInput } from "../models/classifier.ts";
import type { ImageProcessorConfig } from "../models/checkpoint.ts";
import { EncoderEnds } from "../models/encoder_ends.ts";
import type { EncoderSpec } from "../models/encoder_spec.ts";
import { IMAGE_VECTORS, ImageInput } from "../models/image_input.ts";
import type { ModelSpec } from "../models/spec.ts";
import type { Engine } from "./types.ts";

/** @returns null for a model that is no encoder */
export function encoderOf(
  engine: Engine,
  { spec, imageProcessor }: {
    readonly spec: ModelSpec;
    readonly imageProcessor: ImageProcessorConfig | null;
  },
): EncoderModel | null {
  const { attention, encoder, ...rest } = spec;
  return attention.causal
    ? null
    : new Encoder(engine, { ...rest, attention, encoder: encoder ?? PLAIN }, imageProcessor);
}

/** Text, of which the first state stands for all. */
const PLAIN: EncoderSpec = {
  patches: null,
  tokenTypes: 0,
  embeddingNorm: false,
  pooling: "cls",
  pooler: null,
  normsPooled: false,
  projection: null,
  unitLength: false,
  classifier: null,
  labels: [],
};

class Encoder implements EncoderModel {
  readonly reads: EncoderModel["reads"];
  readonly labels: readonly string[] | null;
  readonly #ends: EncoderEnds;
  readonly #images: ImageInput | null;

  constructor(
    readonly engine: Engine,
    readonly spec: ModelSpec & { readonly encoder: EncoderSpec },
    readonly imageProcessor: ImageProcessorConfig | null,
  ) {
    const { patches, classifier, labels } = spec.encoder;
    const vector = (name: string) => engine.vector(name);
    this.reads = patches ? "images" : "text";
    this.labels = classifier ? labels : null;
    this.#ends = new EncoderEnds(spec, vector);
    this.#images = patches
      ? new ImageInput(
        spec,
        Object.fromEntries(IMAGE_VECTORS.map((name) => [name, vector(name) ?? undefined])),
      )
      : null;
  }

  async run(input: Pixels | TokenInput, signal?: AbortSignal): Promise<EncoderOutput> {
    const isImage = "data" in input;
    if (isImage !== (this.#images !== null)) {
      throw new OatmillError(
        "invalid_request",
        `The model reads ${this.reads}, not ${isImage ? "images" : "text"}`,
        "input",
      );
    }
    const rows = isImage ? this.#images!.rowsOf(input) : input;
    const states = await this.engine.encode(rows, signal);
    return { states, width: this.spec.hiddenSize, ...this.#ends.read(states) };
  }
}
