/** Linear layers of real models, as the engine runs them: layers of one input side by side are one. */

import type { Shape2 } from "../kernels/layout.ts";
import { linearShapes } from "../models/spec.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";

export interface LayerShape {
  readonly model: string;
  readonly layer: "qkv" | "o" | "gate+up" | "down";
  /** `[dOut, dIn]` */
  readonly shape: Shape2;
}

export const DEFAULT_MODELS: readonly SyntheticShape[] = [
  "smollm2-135m",
  "llama-3.2-1b",
  "phi-3-mini",
  "llama-2-7b",
];

/** Layers of a block of the model, without q, k, v or gate, up by themselves. */
export function layersOf(model: SyntheticShape): LayerShape[] {
  const { q, k, v, o, gate, up, down } = linearShapes(SYNTHETIC_SPECS[model]);
  const joined = (...shapes: (Shape2 | undefined)[]): Shape2 => {
    const parts = shapes.filter((shape) => shape !== undefined);
    return [parts.reduce((rows, [dOut]) => rows + dOut, 0), parts[0][1]];
  };
  return [
    { model, layer: "qkv", shape: joined(q, k, v) },
    { model, layer: "o", shape: joined(o) },
    { model, layer: "gate+up", shape: joined(gate, up) },
    { model, layer: "down", shape: joined(down) },
  ];
}
