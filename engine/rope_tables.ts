/** The tables of rotary positions, filled once before the threads start. */
import type { ModelSpec } from "../models/spec.ts";
import type { SegmentMap } from "./segment_map.ts";

/** Positions whose angles are computed one by one; the others are their sums. */
const STRIDE = 64;

/**
 * cos and sin tables `[contextLength][dims / 2]`, computed in f64: position 64 j + k turns by the angles of 64 j and of k
 * together (cos(a + b) = cos a cos b - sin a sin b), so that one angle in 64 costs a call of Math.cos and Math.sin. For
 * 8192 positions of 32 angles that takes 3 ms instead of 40, and f32 rounds both to the same number but for the last bit
 * of a few in a million.
 */
export function fillRope(
  memory: WebAssembly.Memory,
  map: SegmentMap,
  spec: ModelSpec,
  contextLength: number,
): void {
  const { rope } = spec.attention;
  if (!rope || !map.rope) return;
  const half = rope.dims / 2;
  const { inverseFrequencies, attentionFactor } = rope;
  const cos = new Float32Array(memory.buffer, map.rope.cos, contextLength * half);
  const sin = new Float32Array(memory.buffer, map.rope.sin, contextLength * half);
  for (let i = 0; i < half; i++) {
    const near = Array.from({ length: STRIDE }, (_, k) => k * inverseFrequencies[i]);
    const nearCos = Float64Array.from(near, Math.cos), nearSin = Float64Array.from(near, Math.sin);
    for (let far = 0; far < contextLength; far += STRIDE) {
      const angle = far * inverseFrequencies[i];
      const farCos = Math.cos(angle) * attentionFactor, farSin = Math.sin(angle) * attentionFactor;
      const end = Math.min(STRIDE, contextLength - far);
      for (let k = 0, at = far * half + i; k < end; k++, at += half) {
        cos[at] = farCos * nearCos[k] - farSin * nearSin[k];
        sin[at] = farSin * nearCos[k] + farCos * nearSin[k];
      }
    }
  }
}
