/** `compress`: one model into one artifact folder. */
import { compress } from "../compress/pipeline.ts";
import { recoveryBody } from "../compress/recovery/recovery_body.ts";
import type { CompressResult } from "../compress/types.ts";
import { parseJsonObject } from "../models/formats/json_file.ts";
import type { AnyHeader } from "../models/formats/graph_artifact.ts";
import type { ALLOCATIONS, Products, RecipeInput, WORKLOADS } from "../models/recipe.ts";
import type { LinearKind } from "../models/spec.ts";
import { agreementLines } from "./agreement.ts";
import { type RunFlags, runInFolder } from "./compress_run.ts";
import { megabytes, printResult, table } from "./output.ts";
import { type RecoverFlags, recoverOf, recoveryLines } from "./recovery_report.ts";

export interface CompressCommandOptions extends RunFlags, RecoverFlags {
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
    ...given({ recover: recoverOf(file.recover, o) }),
  };
}

/** @throws {OatmillError} invalid_recipe */
export async function readRecipe(path: string | undefined): Promise<unknown> {
  if (path === undefined) return {};
  return parseJsonObject(await Deno.readFile(path), `the recipe "${path}"`, "invalid_recipe");
}

export async function compressCommand(source: string, options: CompressCommandOptions): Promise<void> {
  const recipe = mergeRecipe(await readRecipe(options.recipe), options);
  const result = await runInFolder(
    source,
    options,
    (run) => compress({ ...run, name: options.name, recipe }),
  );
  const report = compressReport(result);
  printResult(report, { json: options.json, lines: () => reportLines(report, result) });
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
    ...header.recovery && { recovery: recoveryBody(header.recovery) },
    ...agreementOf(header) && { agreement: agreementOf(header) },
    layers: header.layers,
  };
}

/** Of a graph or an encoder. */
const agreementOf = (header: AnyHeader) => "agreement" in header ? header.agreement : null;

export function reportLines(
  r: ReturnType<typeof compressReport>,
  { header: { recovery } }: Pick<CompressResult, "header">,
): string[] {
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
    ...recoveryLines(recovery),
    ...agreementLines(r.agreement),
    `took         ${r.seconds.toFixed(1)} s, at most ${megabytes(r.peak_rss_bytes)} of memory`,
  ];
}
