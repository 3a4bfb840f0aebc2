/** What an encoder reads and answers, whatever runs it: the engine (engine/encoder.ts) or another runtime. */

import type { ImageProcessorConfig } from "./checkpoint.ts";

/** An image as a vision model reads it: resized, cropped and normalised. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** `[3, height, width]` */
  readonly data: Float32Array;
}

export interface EncoderOutput {
  /** Hidden states `[n, hidden]` after the last block and, where the model has one for them, the final norm. */
  readonly states: Float32Array;
  /** Of a state: `hidden`; 0 when there are none. */
  readonly width: number;
  /** The model's own pooling of them: `[hidden]`, or `[projection]` in models that project it (CLIP). */
  readonly pooled: Float32Array;
  /** `[labels]`; null in a model without a classifier. */
  readonly logits: Float32Array | null;
}

/** Token ids with what they are part of: 0 the first text, 1 the second one of a pair. */
export interface TokenInput {
  readonly ids: readonly number[];
  /** Absent: all 0. */
  readonly types?: readonly number[];
}

/** An opened encoder. */
export interface EncoderModel {
  readonly reads: "images" | "text";
  /** Names of the classes, in the order of logits; null in a model without a classifier. */
  readonly labels: readonly string[] | null;
  /** preprocessor_config.json as it stands in the model's folder; null when there is none. */
  readonly imageProcessor: ImageProcessorConfig | null;
  /**
   * An image of another size than the model's gets interpolated positions.
   * @throws {OatmillError} invalid_request (the other kind of input, an image smaller than a patch),
   * context_length_exceeded (more tokens or patches than the model or the engine takes), cancelled
   */
  run(input: Pixels | TokenInput, signal?: AbortSignal): Promise<EncoderOutput>;
}
