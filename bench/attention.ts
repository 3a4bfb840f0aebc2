/**
 * Speed of the attention kernels of every KV format at real shapes, one thread.
 *
 *     deno run --allow-read bench/attention.ts [--json] [--format int8,f32] [--shape SmolLM2]
 *
 * Decode reads the KV cache of as many layers as fill more than the caches hold, as a model does; prefill is the last
 * chunk of a prompt of its own length. Formats run turn by turn, so that their ratios hold when the machine's speed drifts.
 */

import { Arena } from "../kernels/arena.ts";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import { attentionScratchBytes, KV_FORMATS, type KvFormat, kvPieceBytes } from "../kernels/kv_layout.ts";
import { bindKernels, type Kernels, loadKernelModules } from "../kernels/load.ts";
import { ATTENTION_MODULES } from "../kernels/manifest.ts";
import { tileRowsOf } from "../engine/attention_work.ts";

export interface AttentionShape {
  readonly name: string;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** What one call computes: visible tokens of each row. */
interface Work {
  readonly name: string;
  readonly contexts: readonly number[];
}

export interface AttentionResult {
  readonly shape: string;
  readonly work: string;
  readonly format: KvFormat;
  readonly ms_per_layer: number;
  /** Billions of multiply-adds a second: 2 x heads x headDim x visible tokens / time. */
  readonly gmac_per_second: number;
  /** Keys and values once for all rows. */
  readonly kv_gb_per_second: number;
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const decode = (context: number): Work => ({ name: `decode at ${context}`, contexts: [context] });
const CAUSAL: readonly Work[] = [
  decode(128),
  decode(1024),
  decode(8192),
  { name: "prefill of 256", contexts: range(256).map((i) => i + 1) },
];
const WORK: readonly { readonly shape: AttentionShape; readonly work: readonly Work[] }[] = [
  { shape: { name: "SmolLM2-135M", heads: 9, kvHeads: 3, headDim: 64 }, work: CAUSAL },
  { shape: { name: "Llama-3.2-1B", heads: 32, kvHeads: 8, headDim: 64 }, work: CAUSAL },
  { shape: { name: "Llama-2-7B", heads: 32, kvHeads: 32, headDim: 128 }, work: CAUSAL },
  {
    shape: { name: "ViT-B", heads: 12, kvHeads: 12, headDim: 64 },
    work: [{ name: "encoder of 197", contexts: range(197).map(() => 197) }],
  },
];

/** KV bytes of all layers together: more than a core's share of the last-level cache. */
const STREAM_BYTES = 96 << 20;
const REPEATS = 7;

/** The attention of one layer, ready to run; fills its own part of the arena. */
function prepare(
  arena: Arena,
  kernels: Kernels,
  format: KvFormat,
  { heads, kvHeads, headDim }: AttentionShape,
  work: Work,
) {
  const { contexts } = work;
  const kernel = kernels.attention(format);
  const tokens = Math.max(...contexts), rows = contexts.length;
  const blocks = Math.ceil(tokens / KV_BLOCK_TOKENS), piece = kvPieceBytes(format, headDim);
  const [kBytes, vBytes] = [blocks * kvHeads * piece.k, blocks * kvHeads * piece.v];
  const layers = rows > 1 ? 1 : Math.max(1, Math.floor(STREAM_BYTES / (kBytes + vBytes)));
  const stride = heads * headDim, width = kvHeads * headDim;
  const noise = (n: number) => arena.store(Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898)));
  const [kv, q, out] = [noise(tokens * width), noise(rows * stride), arena.allocate(rows * stride * 4)];
  const slots = arena.store(Int32Array.from(range(tokens)));
  const table = arena.store(Int32Array.from(range(blocks)));
  const tables = arena.store(new Int32Array(rows).fill(table));
  const contextsAt = arena.store(Int32Array.from(contexts));
  const tile = tileRowsOf(heads / kvHeads);
  const scratch = arena.allocate(attentionScratchBytes(tile * heads / kvHeads, headDim));
  const pools = range(layers).map(() => {
    const [k, v] = [arena.allocate(kBytes), arena.allocate(vBytes)];
    kernel.kv_write(kv, width, kv, width, tokens, kvHeads, headDim, slots, k, v, scratch);
    return [k, v];
  });
  const run = (layer: number) => {
    const [k, v] = pools[layer];
    for (let row = 0; row < rows; row += tile) {
      kernel.attention(
        q,
        stride,
        out,
        stride,
        row,
        Math.min(tile, rows - row),
        0,
        kvHeads,
        contextsAt,
        tables,
        k,
        v,
        kvHeads,
        heads / kvHeads,
        headDim,
        1 / Math.sqrt(headDim),
        0,
        0,
        scratch,
        0,
        0,
        0,
        0,
      );
    }
  };
  return { run, layers, bytes: kBytes + vBytes };
}

export interface BenchAttentionOptions {
  readonly formats?: readonly KvFormat[];
  /** Names of shapes; all when absent. */
  readonly shapes?: readonly string[];
  readonly onResult?: (result: AttentionResult) => void;
}

/** Measures every shape, work and format; the best of all calls. */
export async function benchAttention(options: BenchAttentionOptions = {}): Promise<AttentionResult[]> {
  const formats = options.formats ?? KV_FORMATS;
  const arena = new Arena((formats.length * (STREAM_BYTES + (64 << 20))) + (512 << 20));
  const names = ["base", ...formats.map((format) => ATTENTION_MODULES[format].name)];
  const kernels = bindKernels(await loadKernelModules(names), arena.memory);
  const results: AttentionResult[] = [];
  for (const { shape, work } of WORK) {
    if (options.shapes && !options.shapes.includes(shape.name)) continue;
    for (const one of work) {
      arena.reset();
      const runs = formats.map((format) => ({
        format,
        ...prepare(arena, kernels, format, shape, one),
        ms: [] as number[],
      }));
      for (let i = 0; i <= REPEATS; i++) {
        for (const { run, layers, ms } of runs) {
          for (let layer = 0; layer < layers; layer++) {
            const start = performance.now();
            run(layer);
            // The first round compiles.
            if (i > 0) ms.push(performance.now() - start);
          }
        }
      }
      for (const { format, ms, bytes } of runs) {
        const perLayer = Math.min(...ms);
        const visible = one.contexts.reduce((a, b) => a + b, 0);
        const result = {
          shape: shape.name,
          work: one.name,
          format,
          ms_per_layer: perLayer,
          gmac_per_second: 2 * shape.heads * shape.headDim * visible / perLayer / 1e6,
          kv_gb_per_second: bytes / perLayer / 1e6,
        };
        options.onResult?.(result);
        results.push(result);
      }
    }
  }
  return results;
}

const line = (r: AttentionResult): string =>
  `${r.shape.padEnd(14)} ${r.work.padEnd(16)} ${r.format.padEnd(5)} ${
    r.ms_per_layer.toFixed(4).padStart(9)
  } ms ${r.gmac_per_second.toFixed(1).padStart(6)} GMAC/s ${r.kv_gb_per_second.toFixed(2).padStart(6)} GB/s`;

if (import.meta.main) {
  const list = (name: string) =>
    Deno.args.flatMap((arg, i) => Deno.args[i - 1] === name ? arg.split(",") : []);
  const formats = KV_FORMATS.filter((f) => list("--format").length === 0 || list("--format").includes(f));
  const shapes = list("--shape").length ? list("--shape") : undefined;
  const results = await benchAttention({ formats, shapes, onResult: (r) => console.error(line(r)) });
  if (Deno.args.includes("--json")) console.log(JSON.stringify(results, null, 2));
}
