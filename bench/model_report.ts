/**
 * `report`: models side by side, by everything that one chooses between: bytes, perplexity and accuracy on the same text and
 * tasks, speeds of engines that take turns.
 */
import { basename, resolve } from "node:path";
import type { ChoiceQuestion } from "../compress/evaluation/choice_task.ts";
import { evaluate } from "../compress/evaluation/evaluate.ts";
import { openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import { artifactVersion } from "../models/formats/artifact_version.ts";
import { hashText } from "./_hash_text.ts";
import { KeptQuality, type Quality } from "./_kept_quality.ts";
import { benchCompress, type BenchCompressOptions } from "./compress.ts";
import type { CompressRowName } from "./compress_rows.ts";
import { DECODE_PROMPT } from "./contender.ts";
import { type Figures, ratios, summarise, type Summary } from "./figures.ts";
import { openOwn, type OwnEngine } from "./own_engine.ts";
import { takeTurns, type TurnOptions, type Work } from "./take_turns.ts";

export interface ModelReportOptions
  extends Pick<OpenModelOptions, "threads" | "tuning">, Omit<TurnOptions, "onProgress"> {
  /** Artifacts as they are; each other model by these recipes. */
  readonly models: readonly string[];
  readonly rows: readonly CompressRowName[];
  readonly calibration: BenchCompressOptions["calibration"];
  /** Folder of what is compressed on the way; a report that was stopped goes on from it. */
  readonly folder: string;
  /** What perplexity is measured on: the text itself, its file (for recipes) and how much of it. */
  readonly text: {
    readonly content: string;
    readonly file: string;
    readonly maxTokens: number;
    readonly window: number;
  };
  readonly tasks: ReadonlyMap<string, readonly ChoiceQuestion[]>;
  /** As it was typed; stands beside the tables. */
  readonly command?: string;
  /** Most questions of a task. */
  readonly limit?: number;
  readonly onProgress?: (what: string, done: number, total: number) => void;
}

export interface TaskScore {
  readonly accuracy: number;
  readonly standard_error: number;
  readonly count: number;
}
export interface ModelRow {
  readonly name: string;
  readonly artifact: string;
  /** Of the packed tensors; of weights in f32 what they take as f16, in which models are kept. */
  readonly bytes: number;
  readonly as_f16: boolean;
  readonly perplexity: number;
  readonly tasks: Readonly<Record<string, TaskScore>>;
  /** Tokens per second: medians, and how they compare with the baseline's of the same round. */
  readonly speed: Figures<Work>;
  readonly spread: Summary<Work>["spread"];
  readonly ratio: Figures<Work>;
  /** Compressing it; null: it was there. */
  readonly seconds: number | null;
}
export interface ModelReport {
  readonly threads: number;
  readonly text: string;
  readonly tokens: number;
  readonly window: number;
  readonly prompt_tokens: number;
  readonly decode_tokens: number;
  readonly streams: number;
  readonly repeats: number;
  readonly command: string | null;
  /** Name of the row that ratios are to. */
  readonly baseline: string;
  readonly rows: readonly ModelRow[];
}

interface Candidate extends Pick<ModelRow, "name" | "artifact" | "bytes" | "as_f16" | "seconds"> {
  /** Of its weights. */
  readonly version: string;
}

/** What ratios are to, where it is among the rows: what other programs serve by default. */
const BASELINE = "dense int8";

/** @throws {OatmillError} invalid_artifact, invalid_checkpoint, invalid_tokenizer; {Error} when a compression fails */
export async function modelReport(options: ModelReportOptions): Promise<ModelReport> {
  const candidates = await candidatesOf(options), quality = await qualities(candidates, options);
  const { threads, speeds, turns } = await measureSpeeds(candidates, options);
  const baseline = Math.max(0, candidates.findIndex(({ name }) => name.endsWith(BASELINE)));
  return {
    threads,
    text: basename(options.text.file),
    tokens: quality[0].tokens,
    window: options.text.window,
    prompt_tokens: turns.promptTokens,
    decode_tokens: turns.decodeTokens,
    streams: turns.streams,
    repeats: turns.repeats,
    command: options.command ?? null,
    baseline: candidates[baseline].name,
    rows: candidates.map((one, i) => {
      const { median, spread } = summarise(speeds[i]), { perplexity, tasks } = quality[i];
      const ratio = ratios(speeds[i], speeds[baseline]).median;
      const { name, artifact, bytes, as_f16, seconds } = one;
      return { name, artifact, bytes, as_f16, perplexity, tasks, speed: median, spread, ratio, seconds };
    }),
  };
}

async function candidatesOf(options: ModelReportOptions): Promise<Candidate[]> {
  const { models } = options, artifacts = await Promise.all(models.map((model) => isArtifact(model)));
  const sources = artifacts.filter((is) => !is).length, found: Candidate[] = [];
  for (const [i, model] of models.entries()) {
    const prefix = sources === 1 ? "" : `${basename(resolve(model))} `;
    found.push(...artifacts[i] ? [await given(model)] : await compressed(model, prefix, options));
  }
  return found;
}

/** Each measured once: a report that was stopped, or takes one model more, goes on from what it kept. */
async function qualities(candidates: readonly Candidate[], options: ModelReportOptions): Promise<Quality[]> {
  const { text: { content, maxTokens, window }, tasks, limit = null, folder } = options;
  const asked = await hashText(JSON.stringify([content, maxTokens, window, [...tasks], limit]));
  const kept = await KeptQuality.open(folder), found: Quality[] = [];
  for (const [i, one] of candidates.entries()) {
    options.onProgress?.(`quality of ${one.name}`, i, candidates.length);
    found.push(await kept.get(`${one.version} ${asked}`, () => measureQuality(one, options)));
  }
  return found;
}

async function candidate(
  artifact: string,
  { name, seconds }: Pick<Candidate, "name" | "seconds">,
): Promise<Candidate> {
  const { header } = await openArtifact(artifact), { recipe, bytes, denseBytes } = header;
  const asF16 = recipe.method === "none" && recipe.values === "f32", version = artifactVersion(header);
  return { name, artifact, version, bytes: asF16 ? denseBytes : bytes, as_f16: asF16, seconds };
}
const given = (artifact: string) => candidate(artifact, { name: basename(resolve(artifact)), seconds: null });

/** @param prefix of the rows' names */
async function compressed(
  source: string,
  prefix: string,
  options: ModelReportOptions,
): Promise<Candidate[]> {
  const { rows, calibration, folder, threads, text } = options;
  const report = await benchCompress({
    source,
    rows,
    calibration,
    evaluate: { text: resolve(text.file), tokens: text.window }, // measured for all of them below
    folder,
    keep: true,
    threads,
    onProgress: (done, total, row) => options.onProgress?.(`compress ${row}`, done, total),
  });
  return await Promise.all(
    report.rows.map(({ name, artifact, seconds }) => candidate(artifact!, { name: prefix + name, seconds })),
  );
}

async function measureQuality({ artifact }: Candidate, options: ModelReportOptions): Promise<Quality> {
  const { threads, tuning, text, tasks, limit } = options;
  const model = await openModel(artifact, { threads, tuning, prefixCache: tasks.size > 0 });
  try {
    const { content, maxTokens, window } = text;
    const request = { text: content, maxTokens, window, rolling: null, reference: null };
    const found = await evaluate(model, { text: request, tasks, limit, bos: false });
    return {
      tokens: found.text!.tokens,
      perplexity: found.text!.perplexity,
      tasks: Object.fromEntries(
        Object.entries(found.tasks).map(([name, { accuracy, standardError, count }]) => [
          name,
          { accuracy, standard_error: standardError, count },
        ]),
      ),
    };
  } finally {
    await model.engine.close();
  }
}

async function measureSpeeds(candidates: readonly Candidate[], options: ModelReportOptions) {
  const { threads, tuning, streams, repeats } = options;
  const engines: OwnEngine[] = [];
  try {
    for (const { artifact, name } of candidates) {
      engines.push(await openOwn(artifact, name, { threads, tuning, maxSequences: Math.max(1, streams) }));
    }
    const context = Math.min(...engines.map(({ engine }) => engine.contextLength));
    const turns: TurnOptions = {
      promptTokens: Math.min(options.promptTokens, context - 1),
      decodeTokens: Math.min(options.decodeTokens, context - DECODE_PROMPT),
      streams,
      repeats,
      onProgress: (done, total) => options.onProgress?.("speeds, turn by turn", done, total),
    };
    return { speeds: await takeTurns(engines, turns), turns, threads: engines[0].engine.stats().threads };
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

/**
 * Who is not beaten: rows for which no other one is at least as good in both and better in one.
 * @param cost less is better
 * @returns indices, cheapest first
 */
export function paretoFront(
  rows: readonly ModelRow[],
  cost: (row: ModelRow) => number,
  loss: (row: ModelRow) => number = (row) => row.perplexity,
): number[] {
  const beaten = (a: ModelRow) =>
    rows.some((b) => cost(b) <= cost(a) && loss(b) <= loss(a) && (cost(b) < cost(a) || loss(b) < loss(a)));
  return [...rows.keys()].filter((i) => !beaten(rows[i])).sort((i, j) => cost(rows[i]) - cost(rows[j]));
}
