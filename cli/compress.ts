/** `compress`: one model into one artifact folder. */
import { join, resolve } from "node:path";
import { compress } from "../compress/pipeline.ts";
import { workFolderOf } from "../compress/resume/work_folder.ts";
import type { CompressResult, FoundWork } from "../compress/types.ts";
import { OatmillError } from "../errors.ts";
import { parseJsonObject } from "../models/formats/json_file.ts";
import type { AnyHeader } from "../models/formats/graph_artifact.ts";
import type { ALLOCATIONS, Products, RecipeInput, WORKLOADS } from "../models/recipe.ts";
import type { LinearKind } from "../models/spec.ts";
import { agreementLines } from "./agreement.ts";
import { megabytes, note, printResult, ProgressBar, table } from "./output.ts";
import { SOURCE_NOTE } from "./source_note.ts";

export interface CompressCommandOptions {
  readonly out: string;
  readonly name?: string;
  readonly recipe?: string;
  readonly preset?: RecipeInput["preset"];
  readonly method?: RecipeInput["method"];
  readonly rate?: number;
  readonly bytes?: number;
  readonly msPerToken?: number;
  readonly workload?: (typeof WORKLOADS)[number];
  readonly rankRatio?: number;
  readonly dense?: LinearKind[];
  readonly allocation?: (typeof ALLOCATIONS)[number];
  readonly pattern?: RecipeInput["pattern"];
  readonly values?: RecipeInput["values"];
  readonly meanBits?: number;
  readonly rounding?: RecipeInput["rounding"];
  readonly iterations?: number;
  readonly decomposition?: RecipeInput["decomposition"];
  readonly reselect?: number;
  readonly svdWeighting?: RecipeInput["svd_weighting"];
  readonly refine: boolean;
  readonly smallestLayer?: number;
  readonly calibration?: string;
  readonly sequences?: number;
  readonly length?: number;
  readonly statistics?: "dense" | "sequential";
  readonly products?: Products;
  readonly evaluate?: string;
  readonly seed?: number;
  /** Go on where an earlier run stopped. */
  readonly resume: boolean;
  /** MiB */
  readonly workMemory?: number;
  readonly threads?: number;
  readonly json?: boolean;
}

/** Fields that are given; the others stay the file's or the default. */
const given = <T extends object>(fields: T): Partial<T> =>
  Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined)) as Partial<T>;

function budgetOf(
  { bytes, msPerToken, workload }: Omit<CompressCommandOptions, "resume">,
): RecipeInput["budget"] {
  if (bytes !== undefined) return { bytes };
  return msPerToken === undefined ? undefined : { ms_per_token: msPerToken, ...given({ workload }) };
}

// deno-lint-ignore no-explicit-any -- a user's JSON; compress() checks it against the recipe schema
export function mergeRecipe(file: any, o: Omit<CompressCommandOptions, "resume">): RecipeInput {
  const allocation = typeof file.allocation === "string" ? { kind: file.allocation } : file.allocation;
  return {
    ...file,
    ...given({
      preset: o.preset,
      method: o.method,
      rate: o.rate,
      budget: budgetOf(o),
      rank_ratio: o.rankRatio,
      dense: o.dense,
      pattern: o.pattern,
      values: o.values,
      mean_bits: o.meanBits,
      rounding: o.rounding,
      iterations: o.iterations,
      decomposition: o.decomposition,
      reselect: o.reselect,
      svd_weighting: o.svdWeighting,
      refine: o.refine ? undefined : false,
      smallest_layer: o.smallestLayer,
    }),
    allocation: { ...allocation, ...given({ kind: o.allocation }) },
    calibration: {
      ...file.calibration,
      ...given({
        text: o.calibration,
        sequences: o.sequences,
        length: o.length,
        statistics: o.statistics,
        products: o.products,
        seed: o.seed,
      }),
    },
    evaluate: { ...file.evaluate, ...given({ text: o.evaluate }) },
  };
}

/** @throws {OatmillError} invalid_recipe */
export async function readRecipe(path: string | undefined): Promise<unknown> {
  if (path === undefined) return {};
  return parseJsonObject(await Deno.readFile(path), `the recipe "${path}"`, "invalid_recipe");
}

/**
 * Works in a hidden folder beside the artifact, which goes with a success, and with an error that would come again. What
 * stopped a run from outside (Ctrl-C, a crash, a full disk) leaves it: the same command then goes on from there.
 */
export async function compressCommand(source: string, options: CompressCommandOptions): Promise<void> {
  const work = workFolderOf(options.out);
  if (!options.resume) await Deno.remove(work, { recursive: true }).catch(() => {});
  try {
    await compressIn(work, source, options);
    await Deno.remove(work, { recursive: true });
  } catch (error) {
    if (!await exists(work)) throw error;
    if (endsWork(error)) await Deno.remove(work, { recursive: true });
    else note(`What is finished is kept in "${work}": the same command goes on from there, --no-resume anew`);
    throw error;
  }
}

/** Codes of errors that say nothing of the source or the recipe. */
const STOPS: readonly string[] = ["cancelled", "storage_failed", "conflict"];
const endsWork = (error: unknown): boolean => error instanceof OatmillError && !STOPS.includes(error.code);

const exists = (path: string): Promise<boolean> => Deno.stat(path).then(() => true, () => false);

function noteResumed({ resumed, why }: FoundWork): void {
  note(resumed ? "Going on where an earlier run stopped" : `Beginning anew: an earlier run was of ${why}`);
}

async function compressIn(work: string, source: string, options: CompressCommandOptions): Promise<void> {
  const recipe = mergeRecipe(await readRecipe(options.recipe), options);
  const bar = new ProgressBar();
  const abort = new AbortController();
  const stop = () => abort.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    const result = await compress({
      source,
      out: options.out,
      name: options.name,
      recipe,
      work,
      onResume: noteResumed,
      threads: options.threads,
      workMemoryBytes: options.workMemory === undefined ? undefined : options.workMemory * 2 ** 20,
      signal: abort.signal,
      onProgress: (p) => bar.show(p),
    });
    bar.end();
    await Deno.writeTextFile(join(options.out, SOURCE_NOTE), resolve(source));
    const report = compressReport(result);
    printResult(report, { json: options.json, lines: () => reportLines(report) });
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}

export function compressReport({ artifact, header, seconds, peakRssBytes, phases }: CompressResult) {
  return {
    artifact,
    name: header.name,
    method: header.recipe.method,
    rate: header.recipe.rate,
    values: header.recipe.values,
    mean_bits: header.recipe.mean_bits,
    bytes: header.bytes,
    dense_bytes: header.denseBytes,
    seconds,
    phases,
    peak_rss_bytes: peakRssBytes,
    perplexity: header.perplexity,
    ...agreementOf(header) && { agreement: agreementOf(header) },
    layers: header.layers,
  };
}

/** Of a graph or an encoder. */
const agreementOf = (header: AnyHeader) => "agreement" in header ? header.agreement : null;

function reportLines(r: ReturnType<typeof compressReport>): string[] {
  const quality = r.perplexity
    ? [
      `perplexity   ${r.perplexity.dense.toFixed(3)} dense, ${
        r.perplexity.compressed.toFixed(3)
      } compressed (${r.perplexity.tokens} tokens)`,
    ]
    : [];
  return [
    ...table([
      ["layer", "rate", "rank", "kept", "values", "error"],
      ...r.layers.map((l) => [l.name, l.rate, l.rank, l.kept, l.values ?? l.bits, l.error]),
    ]),
    "",
    `artifact     ${r.artifact}`,
    `size         ${megabytes(r.bytes)} (dense float16: ${megabytes(r.dense_bytes)})`,
    ...quality,
    ...agreementLines(r.agreement),
    `took         ${r.seconds.toFixed(1)} s, at most ${megabytes(r.peak_rss_bytes)} of memory`,
  ];
}
