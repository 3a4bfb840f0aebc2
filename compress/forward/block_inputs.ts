/** What a block's graph reads besides hidden states: the mask, the rotations, the weights. */
import type { InputTensor, Tensor } from "../linalg/runtime.ts";
import { type InputName, inputOf, type ModelSpec } from "../../models/spec.ts";
import type { BlockJob } from "./block_job.ts";
import { int8Weights, isCoded, smoothing, smoothingFactors, weightScale } from "./int8_linear.ts";

/** A decoder's causal (and windowed) mask, and the rotations of every position. */
export function positionInputs(spec: ModelSpec, length: number): Record<string, Tensor> {
  const { window, rope, causal } = spec.attention;
  const mask = new Float32Array(length * length);
  for (let i = 0; i < length; i++) {
    for (let j = 0; j < length; j++) {
      if (j > i || (window !== null && i - j >= window)) mask[i * length + j] = -1e9;
    }
  }
  const inputs: Record<string, Tensor> = causal ? { mask: { data: mask, shape: [length, length] } } : {};
  if (rope) {
    const half = rope.dims / 2, shape = [length, 1, half];
    const { inverseFrequencies } = rope.long && length > rope.long.beyond ? rope.long : rope;
    const table = (f: (angle: number) => number) =>
      Float32Array.from(
        { length: length * half },
        (_, at) => rope.attentionFactor * f(Math.floor(at / half) * inverseFrequencies[at % half]),
      );
    inputs.cos = { data: table(Math.cos), shape };
    inputs.sin = { data: table(Math.sin), shape };
  }
  return inputs;
}

/**
 * A block's weights: f32 as they are, or with codes for the linear layers that {@linkcode isCoded} names.
 * @param sizes root mean squares of the inputs' columns, for codes; null: all in f32
 */
export function weightInputs(
  weights: BlockJob["weights"],
  sizes: Readonly<Record<InputName, Float64Array>> | null,
): Record<string, InputTensor> {
  const products = sizes ? "int8" : "f32", inputs: Record<string, InputTensor> = {};
  const coded = new Set(Object.keys(weights).filter((name) => isCoded(name, products)).map(inputOf));
  const factors = Object.fromEntries([...coded].map((name) => [name, smoothingFactors(sizes![name])]));
  for (const [name, { data, shape }] of Object.entries(weights)) {
    if (!isCoded(name, products)) inputs[name] = { data: new Float32Array(data), shape };
    else {
      const { codes, scales } = int8Weights(data, factors[inputOf(name)]);
      inputs[name] = { data: codes, shape: [...shape].reverse() };
      inputs[weightScale(name)] = { data: scales, shape: [scales.length] };
    }
  }
  for (const [name, data] of Object.entries(factors)) {
    inputs[smoothing(name as InputName)] = { data, shape: [data.length] };
  }
  return inputs;
}
