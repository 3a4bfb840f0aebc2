/** A matrix as the kernels hold it, before it is laid out: small integers times a scale for every row and run of columns. */
import { fromBf16, toBf16 } from "./_quantize_row.ts";

/** weight = code x scale. */
export interface CodedMatrix {
  readonly rows: number;
  readonly cols: number;
  /** `[rows, cols]` */
  readonly codes: Int8Array<ArrayBuffer>;
  /** Columns that share a scale; the last run of a row may be shorter. */
  readonly runColumns: number;
  /** `[rows, runs]`, exact in bf16; may be negative. */
  readonly scales: Float32Array<ArrayBuffer>;
}

/** Scales that a row has. */
export const runCount = (cols: number, runColumns: number): number => Math.ceil(cols / runColumns);

/** The nearest scale that a header can hold. */
export const roundScale = (scale: number): number => fromBf16(toBf16(scale));

/** The values `[rows, cols]` that the codes stand for, exactly as a kernel sees them. */
export function decode({ rows, cols, codes, scales, runColumns }: CodedMatrix): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * cols), runs = runCount(cols, runColumns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++) {
      out[i * cols + j] = codes[i * cols + j] * scales[i * runs + Math.floor(j / runColumns)];
    }
  }
  return out;
}
