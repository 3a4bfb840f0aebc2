/** Encoders with recorded outputs in `../shared/oracles`, and the images that were recorded. */
import type { Pixels, TokenInput } from "../classifier.ts";
import { shared } from "./shared.ts";

export const IMAGE_ORACLES = [
  "vit",
  "vit_odd",
  "deit_distilled",
  "dinov2",
  "dinov2_swiglu",
  "dinov2_registers",
  "clip_vision",
] as const;
export const TEXT_ORACLES = ["bert"] as const;
export const ENCODER_ORACLES = [...IMAGE_ORACLES, ...TEXT_ORACLES] as const;

/** What is recorded of an input: some of it. */
export interface RecordedOutput {
  readonly logits?: readonly number[];
  readonly image_embeds?: readonly number[];
  readonly pooler_output?: readonly number[];
  readonly last_hidden_state?: readonly (readonly number[])[];
  readonly last_hidden_state_shape?: readonly number[];
  readonly last_hidden_state_cls?: readonly number[];
  readonly last_hidden_state_mean_all_tokens?: readonly number[];
  readonly features?: {
    readonly last_hidden_state_shape: readonly number[];
    readonly cls: readonly number[];
    readonly mean_all_tokens: readonly number[];
    readonly last_hidden_state?: readonly (readonly number[])[];
    readonly pooler_output?: readonly number[];
  };
}

interface RecordedCase extends RecordedOutput {
  readonly image?: string;
  readonly height?: number;
  readonly width?: number;
  readonly input_ids?: readonly number[];
  readonly token_type_ids?: readonly number[];
  readonly attention_mask?: readonly number[];
}

interface Recorded {
  readonly input?: { readonly mean: readonly number[]; readonly std: readonly number[] };
  readonly cases: Readonly<Record<string, RecordedCase>>;
}

export interface EncoderCase {
  readonly name: string;
  readonly input: Pixels | TokenInput;
  readonly output: RecordedOutput;
}

/** All that was recorded of an oracle. Padding is left out: what a mask hides does not exist. */
export async function encoderCases(oracle: string): Promise<EncoderCase[]> {
  const text = await Deno.readTextFile(shared(`oracles/${oracle}/expected.json`));
  const { input, cases }: Recorded = JSON.parse(text);
  return Object.entries(cases).map(([name, c]) => ({
    name,
    input: input && c.image ? imageOf(c.image, c, input) : tokensOf(c),
    output: c,
  }));
}

function tokensOf({ input_ids = [], token_type_ids = [], attention_mask = [] }: RecordedCase): TokenInput {
  const seen = (values: readonly number[]) => values.filter((_, i) => attention_mask[i] === 1);
  return { ids: seen(input_ids), types: seen(token_type_ids) };
}

/** The formulas of expected.json: 8-bit levels by channel, row and column. */
const LEVELS: Readonly<Record<string, (c: number, y: number, x: number) => number>> = {
  ramp: (c, y, x) => (7 * c + 13 * y + 29 * x) % 256,
  quad: (c, y, x) => ((c + 1) * (3 * y * y + 5 * x * y + 11 * x + 17)) % 256,
  black: () => 0,
};

function imageOf(
  name: string,
  { height = 0, width = 0 }: RecordedCase,
  { mean, std }: NonNullable<Recorded["input"]>,
): Pixels {
  const data = Float32Array.from({ length: 3 * height * width }, (_, i) => {
    const c = Math.floor(i / (height * width)), y = Math.floor(i / width) % height;
    return (LEVELS[name](c, y, i % width) / 255 - mean[c]) / std[c];
  });
  return { height, width, data };
}
