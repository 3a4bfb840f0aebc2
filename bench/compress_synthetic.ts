/**
 * How long and in how much memory a model of a real shape is compressed: some blocks of real size, with embedding and
 * head, from a checkpoint written for it; the hours of the whole model follow from the blocks.
 */
import { join } from "node:path";
import { compress } from "../compress/pipeline.ts";
import { seededRandom } from "../compress/random.ts";
import type { CompressPhase, CompressProgress } from "../compress/types.ts";
import type { RecipeInput } from "../models/recipe.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { writeSyntheticCheckpoint } from "./synthetic_checkpoint.ts";

export interface BenchCompressOptions {
  readonly shape: SyntheticShape;
  /** Blocks of real size; at most the shape's. */
  readonly blocks: number;
  /** Its calibration is replaced: random token ids, for which no tokenizer is needed. */
  readonly recipe: RecipeInput;
  readonly sequences: number;
  readonly length: number;
  readonly threads?: number;
  readonly workMemoryBytes?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (p: CompressProgress) => void;
}

export interface BenchCompressReport {
  readonly shape: SyntheticShape;
  readonly blocks: number;
  readonly method: string;
  readonly rate: number;
  readonly sequences: number;
  readonly length: number;
  readonly checkpoint_bytes: number;
  readonly seconds: number;
  readonly phases: Partial<Record<CompressPhase, number>>;
  /** Of the whole process; nothing else of size runs in it. */
  readonly peak_rss_bytes: number;
  /** The whole model, from the phases that every block goes through. */
  readonly whole: { readonly blocks: number; readonly hours: number };
}

/** Phases that a model goes through once, whatever its number of blocks. */
const ONCE: readonly CompressPhase[] = ["sample"];

/** @throws {OatmillError} invalid_request when the shape cannot be written, and what compress() throws */
export async function benchCompress(options: BenchCompressOptions): Promise<BenchCompressReport> {
  const { shape, sequences, length } = options;
  const whole = SYNTHETIC_SPECS[shape], blocks = Math.min(options.blocks, whole.blocks);
  const folder = await Deno.makeTempDir({ prefix: "oatmill-bench-" });
  try {
    const source = join(folder, "checkpoint"), text = join(folder, "calibration.jsonl");
    await Deno.mkdir(source);
    const bytes = await writeSyntheticCheckpoint(source, { ...whole, blocks });
    // As many again as evaluation holds back.
    await Deno.writeTextFile(text, randomIds(2 * sequences, length, whole.vocabSize));
    const { header, seconds, phases, peakRssBytes } = await compress({
      source,
      out: join(folder, "artifact"),
      recipe: {
        ...options.recipe,
        calibration: { ...options.recipe.calibration, text, sequences, length },
        evaluate: { text: null, tokens: Math.max(64, length) },
      },
      threads: options.threads,
      workMemoryBytes: options.workMemoryBytes,
      signal: options.signal,
      onProgress: options.onProgress,
    });
    return {
      shape,
      blocks,
      method: header.recipe.method,
      rate: header.recipe.rate,
      sequences,
      length,
      checkpoint_bytes: bytes,
      seconds,
      phases,
      peak_rss_bytes: peakRssBytes,
      whole: { blocks: whole.blocks, hours: wholeSeconds(phases, whole.blocks / blocks) / 3600 },
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const wholeSeconds = (phases: BenchCompressReport["phases"], factor: number): number =>
  (Object.entries(phases) as [CompressPhase, number][])
    .reduce((sum, [phase, seconds]) => sum + seconds * (ONCE.includes(phase) ? 1 : factor), 0);

/** One sequence of random ids a line. */
function randomIds(sequences: number, length: number, vocabSize: number): string {
  const random = seededRandom(1);
  const ids = () => JSON.stringify(Array.from({ length }, () => random.below(vocabSize)));
  return Array.from({ length: sequences }, ids).join("\n");
}
