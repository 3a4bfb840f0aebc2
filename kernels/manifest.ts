/**
 * What exists: every generated module. The generator, the loader, the oracle tests, the benchmark and the autotuner
 * read this table; there is no second list.
 */

import { formatName, MAX_HALF_WINDOWS, ROWS, type WeightFormat, type WindowCount } from "./layout.ts";
import { TILE_SIZES, type TileSize } from "./abi.ts";
import { KV_FORMATS, type KvFormat } from "./kv_layout.ts";

/** Where products are summed: f32; 16-bit lanes widened in time; 32-bit lanes. */
export type Accumulate = "f32" | "i16" | "i32";

/** A module of linear kernels `mv_b1` .. `mv_b8` for one weight format. */
export interface LinearModule {
  readonly kind: "linear";
  /** The format's name; two variants of a module share it. */
  readonly name: string;
  /** Name of its files in `gen/`, unique. */
  readonly file: string;
  readonly format: LinearFormat;
  readonly accumulate: Accumulate;
  /**
   * What tells the modules of one format apart. All compute the same bits; the first in the table is taken where nothing
   * was measured. Formats of one kind and width have the same variants.
   */
  readonly variant: string;
}

/** A module written out in AssemblyScript: its parts in `templates/`, joined in this order. */
export interface PlainModule {
  readonly kind: "plain";
  readonly name: string;
  readonly file: string;
  readonly parts: readonly string[];
}

/** Attention over KV pools of one format. */
export interface AttentionModule {
  readonly kind: "attention";
  readonly name: string;
  readonly file: string;
  readonly format: KvFormat;
}

export type ModuleEntry = LinearModule | PlainModule | AttentionModule;

/** A weight format without the run-time parameter `blockChunks`. */
export type LinearFormat =
  | { readonly kind: "f32" | "q8" | "q4" }
  | ({ readonly kind: "windows"; readonly bits: 4 | 8 } & WindowCount);

/** The slots for which window modules exist; 16 of 16 is dense. */
const WINDOW_COUNTS: readonly WindowCount[] = [
  ...Array.from({ length: 15 }, (_, i) => ({ windows: i + 1 })),
  ...Array.from({ length: MAX_HALF_WINDOWS }, (_, i) => ({ windows: i + 1, halves: true } as const)),
];

const quantized: readonly LinearFormat[] = [
  { kind: "q8" },
  { kind: "q4" },
  ...([8, 4] as const).flatMap((bits) =>
    WINDOW_COUNTS.map((count) => ({ kind: "windows", ...count, bits } as const))
  ),
];

function linearModule(format: LinearFormat, accumulate: Accumulate): LinearModule {
  const name = format.kind === "windows" ? formatName({ ...format, blockChunks: 1 }) : format.kind;
  const file = accumulate === "i32" ? `${name}_i32` : name;
  return { kind: "linear", name, file, format, accumulate, variant: accumulate };
}

/**
 * Quantised formats come twice. `i16`: pair sums in 16 bits, then a multiply-add with ones, for 4-bit codes only after 8
 * vectors. `i32`: the dot product straight into 32 bits, better where it is one instruction (AVX-VNNI, ARM dot products);
 * elsewhere V8 makes three of it and rebuilds the ones (Zen 5 without it: -20 to -35 %). `tune()` measures.
 */
export const LINEAR_MODULES: readonly LinearModule[] = [
  linearModule({ kind: "f32" }, "f32"),
  ...quantized.map((format) => linearModule(format, "i16")),
  ...quantized.map((format) => linearModule(format, "i32")),
];

/** The attention module of each KV format. */
export const ATTENTION_MODULES: Readonly<Record<KvFormat, AttentionModule>> = Object.fromEntries(
  KV_FORMATS.map((format) => {
    const name = `attention_${format}`;
    return [format, { kind: "attention", name, file: name, format }] as const;
  }),
) as Record<KvFormat, AttentionModule>; // cast: one entry a format

export const MODULES: readonly ModuleEntry[] = [
  {
    kind: "plain",
    name: "base",
    file: "base",
    parts: [
      "math.as.ts",
      "quantize.as.ts",
      "norm.as.ts",
      "elementwise.as.ts",
      "logits.as.ts",
    ],
  },
  { kind: "plain", name: "probe", file: "probe", parts: ["probe.as.ts"] },
  { kind: "plain", name: "peak", file: "peak", parts: ["peak.ts"] },
  ...Object.values(ATTENTION_MODULES),
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
