/**
 * What exists: every generated module. The generator, the loader, the oracle tests, the benchmark and the autotuner
 * read this table; there is no second list.
 */

import { ROWS, type WeightFormat } from "./layout.ts";
import { TILE_SIZES, type TileSize } from "./abi.ts";

/** Where products are summed: f32; 16-bit lanes widened in time; 32-bit lanes. */
export type Accumulate = "f32" | "i16" | "i32";

/** A module of linear kernels `mv_b1` .. `mv_b8` for one weight format. */
export interface LinearModule {
  readonly kind: "linear";
  /** Also the file's name. */
  readonly name: string;
  readonly format: LinearFormat;
  readonly accumulate: Accumulate;
}

/** A module written out in AssemblyScript: its parts in `templates/`, joined in this order. */
export interface PlainModule {
  readonly kind: "plain";
  readonly name: string;
  readonly parts: readonly string[];
}

export type ModuleEntry = LinearModule | PlainModule;

/** A weight format without the run-time parameter `blockChunks`. */
export type LinearFormat =
  | { readonly kind: "f32" | "q8" | "q4" }
  | { readonly kind: "windows"; readonly windows: number; readonly bits: 4 | 8 };

/** Slots a chunk for which window modules exist; 16 of 16 is dense. */
export const WINDOW_COUNTS: readonly number[] = Array.from({ length: 15 }, (_, i) => i + 1);

const windowModules = (bits: 4 | 8, accumulate: Accumulate): LinearModule[] =>
  WINDOW_COUNTS.map((windows) => ({
    kind: "linear",
    name: `w${windows}q${bits}`,
    format: { kind: "windows", windows, bits },
    accumulate,
  }));

/**
 * 8-bit values: i16 here means one pair sum in 16 bits, then a multiply-add with ones: what V8 emits for the i32 dot
 * without AVX-VNNI, less the rebuilding of the ones.
 */
export const LINEAR_MODULES: readonly LinearModule[] = [
  { kind: "linear", name: "f32", format: { kind: "f32" }, accumulate: "f32" },
  { kind: "linear", name: "q8", format: { kind: "q8" }, accumulate: "i16" },
  { kind: "linear", name: "q4", format: { kind: "q4" }, accumulate: "i16" },
  ...windowModules(8, "i16"),
  ...windowModules(4, "i16"),
];

export const MODULES: readonly ModuleEntry[] = [
  {
    kind: "plain",
    name: "base",
    parts: [
      "math.as.ts",
      "quantize.as.ts",
      "norm.as.ts",
      "attention.ts",
      "elementwise.as.ts",
      "logits.as.ts",
    ],
  },
  { kind: "plain", name: "probe", parts: ["probe.as.ts"] },
  ...LINEAR_MODULES,
];

/**
 * XNNPACK-style full name of a linear kernel, for example `q8_w6q8_mv_4x64b1__relaxed_i16`:
 * activation, weight, operation, rows x columns of one step, batch, instruction set, accumulation.
 */
export function kernelName({ name, accumulate }: LinearModule, batch: TileSize): string {
  const [activation, columns] = name === "f32" ? ["f32", 1] : ["q8", 64];
  return `${activation}_${name}_mv_${ROWS}x${columns}b${batch}__relaxed_${accumulate}`;
}

/** Full names of the kernels in a module, smallest batch first; plain modules list none. */
export function kernelNames(entry: ModuleEntry): string[] {
  return entry.kind === "linear" ? [...TILE_SIZES].reverse().map((batch) => kernelName(entry, batch)) : [];
}

/** The packed format a linear module reads; `blockChunks` only matters to windows. */
export function weightFormat({ format }: LinearModule, blockChunks: number): WeightFormat {
  return format.kind === "windows" ? { ...format, blockChunks } : { kind: format.kind };
}
