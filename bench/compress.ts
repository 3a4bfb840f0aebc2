/**
 * `bench compress`: one model by many recipes, each compressed in a process of its own (so that its time and peak memory
 * are its own) and scored as it is served. Every finished row is kept beside the artifacts' folder: a benchmark that was
 * stopped goes on where it was.
 */
import { join, resolve } from "node:path";
import { z } from "zod";
import { hashText } from "./_hash_text.ts";
import { denoCommand, ROOT, taskPermissions } from "./_own_process.ts";
import { otherBytes } from "../compress/other_bytes.ts";
import { isArtifact } from "../models/formats/artifact.ts";
import { openCheckpoint } from "../models/open.ts";
import { type RecipeInput, recipeSchema } from "../models/recipe.ts";
import { linearShapes } from "../models/spec.ts";
import { type CompressRowName, rowRecipeOf } from "./compress_rows.ts";

export interface BenchCompressOptions {
  /** Model folder or .gguf file. */
  readonly source: string;
  readonly rows: readonly CompressRowName[];
  /** Calibration and evaluation of all rows, as in a recipe. */
  readonly calibration: NonNullable<RecipeInput["calibration"]>;
  readonly evaluate: NonNullable<RecipeInput["evaluate"]>;
  /** Folder of results and, with `keep`, of artifacts. */
  readonly folder: string;
  readonly keep?: boolean;
  readonly threads?: number;
  readonly onProgress?: (done: number, total: number, row: string) => void;
}

const reportSchema = z.object({
  bytes: z.number(),
  seconds: z.number(),
  phases: z.record(z.string(), z.number()),
  peak_rss_bytes: z.number(),
  perplexity: z.object({ dense: z.number(), compressed: z.number(), tokens: z.number(), text: z.string() }),
});
const rowSchema = z.object({
  key: z.string(),
  name: z.string(),
  recipe: z.record(z.string(), z.unknown()),
  report: reportSchema,
});
type StoredRow = z.infer<typeof rowSchema>;

export interface CompressRow {
  readonly name: string;
  readonly recipe: RecipeInput;
  readonly perplexity: number;
  readonly dense_perplexity: number;
  readonly seconds: number;
  readonly phases: Readonly<Record<string, number>>;
  readonly peak_rss_bytes: number;
  readonly bytes: number;
  /** Its folder, with `keep`. */
  readonly artifact: string | null;
}
export interface BenchCompressReport {
  readonly source: string;
  readonly tokens: number;
  readonly rows: readonly CompressRow[];
}

const RESULTS = "compress-rows.jsonl";

/** @throws {Error} with what the process said, when a row fails */
export async function benchCompress(options: BenchCompressOptions): Promise<BenchCompressReport> {
  const { source, rows, folder } = options;
  await Deno.mkdir(folder, { recursive: true });
  const results = join(folder, RESULTS), known = await readRows(results);
  const found: StoredRow[] = [], int8Bytes = await denseInt8Bytes(source);
  for (const [i, name] of rows.entries()) {
    options.onProgress?.(i, rows.length, name);
    const recipe = rowRecipe(name, options, int8Bytes);
    const key = await hashText(JSON.stringify([resolve(source), recipe]));
    const artifact = join(folder, key);
    let row = known.findLast((r) => r.key === key);
    if (!row || (options.keep && !await isArtifact(artifact))) {
      row = {
        key,
        name,
        recipe: { ...recipe },
        report: await compressInProcess(recipe, artifact, options),
      };
      await Deno.writeTextFile(results, `${JSON.stringify(row)}\n`, { append: true });
    }
    found.push(row);
  }
  options.onProgress?.(rows.length, rows.length, "");
  return {
    source,
    tokens: found[0]?.report.perplexity.tokens ?? 0,
    rows: found.map((row) => publicRow(row, options)),
  };
}

const publicRow = (
  { key, name, recipe, report }: StoredRow,
  { keep, folder }: BenchCompressOptions,
): CompressRow => ({
  name,
  recipe: recipe as RecipeInput,
  perplexity: report.perplexity.compressed,
  dense_perplexity: report.perplexity.dense,
  seconds: report.seconds,
  phases: report.phases,
  peak_rss_bytes: report.peak_rss_bytes,
  bytes: report.bytes,
  artifact: keep ? join(folder, key) : null,
});

/** Of all tensors of an artifact that compresses nothing, but has inputs' scales. */
async function denseInt8Bytes(source: string): Promise<number> {
  const checkpoint = await openCheckpoint(source), { spec } = checkpoint;
  checkpoint.close();
  return otherBytes(spec, recipeSchema.parse({ method: "none", dense: Object.keys(linearShapes(spec)) }));
}

function rowRecipe(
  name: CompressRowName,
  { calibration, evaluate }: BenchCompressOptions,
  int8Bytes: number,
): RecipeInput {
  const recipe = rowRecipeOf(name, int8Bytes);
  return { ...recipe, calibration: { ...calibration, ...recipe.calibration }, evaluate };
}

/** Rows that an earlier run finished; a last line that was cut off is none. */
async function readRows(path: string): Promise<StoredRow[]> {
  const text = await Deno.readTextFile(path).catch(() => "");
  return text.split("\n").flatMap((line) => {
    try {
      return [rowSchema.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });
}

async function compressInProcess(
  recipe: RecipeInput,
  artifact: string,
  { source, keep, threads }: BenchCompressOptions,
): Promise<z.infer<typeof reportSchema>> {
  await Deno.remove(artifact, { recursive: true }).catch(() => {});
  const recipeFile = `${artifact}.recipe.json`;
  await Deno.writeTextFile(recipeFile, JSON.stringify(recipe));
  const args = ["run", "--no-prompt", ...taskPermissions("oatmill"), "main.ts", "compress", resolve(source)];
  args.push("--out", resolve(artifact), "--recipe", resolve(recipeFile), "--json");
  if (threads !== undefined) args.push("--threads", String(threads));
  try {
    const { code, stdout, stderr } = await new Deno.Command(denoCommand(), { cwd: ROOT, args }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    if (code !== 0) {
      throw new Error(`Compressing by ${JSON.stringify(recipe)} failed: ${text(stderr).slice(-2000)}`);
    }
    return reportSchema.parse(JSON.parse(text(stdout)));
  } finally {
    await Deno.remove(recipeFile).catch(() => {});
    if (!keep) await Deno.remove(artifact, { recursive: true }).catch(() => {});
  }
}
