/** The tables of rotary positions, filled once before the threads start. */
import type { ModelSpec } from "../models/spec.ts";
import type { SegmentMap } from "./memory_map.ts";

/** cos and sin tables `[contextLength][dims / 2]`, computed in f64. */
export function fillRope(
  memory: WebAssembly.Memory,
  map: SegmentMap,
  spec: ModelSpec,
  contextLength: number,
): void {
  const { rope } = spec.attention;
  if (!rope || !map.rope) return;
  const half = rope.dims / 2;
  const cos = new Float32Array(memory.buffer, map.rope.cos, contextLength * half);
  const sin = new Float32Array(memory.buffer, map.rope.sin, contextLength * half);
  for (let p = 0; p < contextLength; p++) {
    for (let i = 0; i < half; i++) {
      const a = p * rope.inverseFrequencies[i];
      cos[p * half + i] = Math.cos(a) * rope.attentionFactor;
      sin[p * half + i] = Math.sin(a) * rope.attentionFactor;
    }
  }
}
