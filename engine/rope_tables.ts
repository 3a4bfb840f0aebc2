/** The tables of rotary positions, filled once before the threads start. */
import { blockSpecs, type ModelSpec, type RopeSpec } from "../models/spec.ts";
import type { RopePlace, SegmentMap } from "./segment_map.ts";

/** Positions whose angles are computed one by one; the others are their sums. */
const STRIDE = 64;

/** Rows of a rope table: a row a position, and behind those another row a position for sequences of more than `beyond` tokens. */
export interface RopeRows {
  readonly count: number;
  /** Tokens up to which a sequence turns by the first rows; Infinity: always. */
  readonly beyond: number;
  /** The row of position 0 of longer sequences. */
  readonly long: number;
}

/** How the tables of a model are laid out: all alike, whatever some blocks need. */
export function ropeRows(spec: ModelSpec, contextLength: number): RopeRows {
  const found = blockSpecs(spec).map(({ attention: { rope } }) => rope?.long?.beyond ?? Infinity);
  const beyond = Math.min(...found);
  return beyond < contextLength
    ? { count: beyond + contextLength, beyond, long: beyond }
    : { count: contextLength, beyond: Infinity, long: 0 };
}

/** Fills the tables of a segment's blocks. */
export function fillRope(
  memory: WebAssembly.Memory,
  map: SegmentMap,
  spec: ModelSpec,
  contextLength: number,
): void {
  const rows = ropeRows(spec, contextLength);
  const filled = new Set<RopePlace>();
  for (const [block, { attention: { rope } }] of blockSpecs(spec).entries()) {
    const place = map.ropes[block];
    if (!rope || !place || filled.has(place)) continue;
    filled.add(place);
    fillRows(memory, place, { ...rope, rows: { from: 0, count: Math.min(rows.beyond, contextLength) } });
    if (rows.long === 0) continue;
    const { inverseFrequencies } = rope.long ?? rope;
    fillRows(memory, place, { ...rope, inverseFrequencies, rows: { from: rows.long, count: contextLength } });
  }
}

/**
 * cos and sin of positions 0 .. count - 1 into rows from .. from + count - 1 of tables `[rows][dims / 2]`, computed in f64:
 * position 64 j + k turns by the angles of 64 j and of k together (cos(a + b) = cos a cos b - sin a sin b), so that one angle
 * in 64 costs a call of Math.cos and Math.sin. For 8192 positions of 32 angles that takes 3 ms instead of 40, and f32 rounds
 * both to the same number but for the last bit of a few in a million.
 */
function fillRows(
  memory: WebAssembly.Memory,
  place: RopePlace,
  { dims, inverseFrequencies, attentionFactor, rows: { from, count } }:
    & Pick<RopeSpec, "dims" | "inverseFrequencies" | "attentionFactor">
    & { readonly rows: { readonly from: number; readonly count: number } },
): void {
  const half = dims / 2, first = from * half * 4;
  const cos = new Float32Array(memory.buffer, place.cos + first, count * half);
  const sin = new Float32Array(memory.buffer, place.sin + first, count * half);
  for (let i = 0; i < half; i++) {
    const near = Array.from({ length: STRIDE }, (_, k) => k * inverseFrequencies[i]);
    const nearCos = Float64Array.from(near, Math.cos), nearSin = Float64Array.from(near, Math.sin);
    for (let far = 0; far < count; far += STRIDE) {
      const angle = far * inverseFrequencies[i];
      const farCos = Math.cos(angle) * attentionFactor, farSin = Math.sin(angle) * attentionFactor;
      const end = Math.min(STRIDE, count - far);
      for (let k = 0, at = far * half + i; k < end; k++, at += half) {
        cos[at] = farCos * nearCos[k] - farSin * nearSin[k];
        sin[at] = farSin * nearCos[k] + farCos * nearSin[k];
      }
    }
  }
}
