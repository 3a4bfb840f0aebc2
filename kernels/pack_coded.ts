/** Packs codes and scales that someone else chose: what is stored is exactly what was optimised. */
import { Q4_GRID, Q8_GRID, toBf16 } from "./_quantize_row.ts";
import { type CodedMatrix, roundScale, runCount } from "./coded_matrix.ts";
import { CHUNK, type Shape2, type WeightFormat } from "./layout.ts";
import { packDenseRuns, type PackOptions } from "./pack_dense.ts";
import { packWindowRuns } from "./pack_windows.ts";

type CodedFormat = Exclude<WeightFormat, { kind: "f32" }>;

/** Columns of a format that share a scale. */
export const runColumnsOf = (format: CodedFormat): number =>
  format.kind === "windows" ? format.blockChunks * CHUNK : CHUNK;

/**
 * @param format dense, or windows that hold every entry with a code other than 0
 * @throws {RangeError} when codes, scales or runs are none of the format's, or entries do not fit the windows
 */
export function packCoded(format: CodedFormat, coded: CodedMatrix, options: PackOptions = {}): Uint8Array {
  check(format, coded);
  const { rows, cols, codes, scales, runColumns } = coded;
  const shape: Shape2 = [rows, cols], runs = runCount(cols, runColumns);
  const run = (row: number, from: number, count: number, out: Int8Array): number => {
    const at = row * cols + from;
    for (let c = 0; c < count; c++) out[c] = codes[at + c];
    return toBf16(scales[row * runs + from / runColumns]);
  };
  return format.kind === "windows"
    ? packWindowRuns(codes, run, shape, { ...format, ...options })
    : packDenseRuns(format.kind, run, shape, options);
}

function check(format: CodedFormat, { rows, cols, codes, scales, runColumns }: CodedMatrix): void {
  if (runColumns !== runColumnsOf(format)) {
    throw new RangeError(
      `Cannot pack runs of ${runColumns} columns as "${format.kind}": must be ${runColumnsOf(format)}`,
    );
  }
  if (codes.length !== rows * cols || scales.length !== rows * runCount(cols, runColumns)) {
    throw new RangeError(`Cannot pack ${codes.length} codes, ${scales.length} scales as [${rows}, ${cols}]`);
  }
  const wide = format.kind === "q8" || (format.kind === "windows" && format.bits === 8);
  const { min, max } = wide ? Q8_GRID : Q4_GRID;
  for (let i = 0; i < codes.length; i++) {
    if (codes[i] >= min && codes[i] <= max) continue;
    throw new RangeError(`Cannot pack code ${codes[i]}: must lie in ${min}..${max}`);
  }
  const scale = scales.find((s) => roundScale(s) !== s);
  if (scale !== undefined) throw new RangeError(`Cannot pack scale ${scale}: must be exact in bf16`);
}
