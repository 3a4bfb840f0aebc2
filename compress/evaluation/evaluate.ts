/** Everything that can be measured of one open model: what `eval` prints. */
import type { OpenedModel } from "../../engine/open_model.ts";
import { needTokenizer } from "../../engine/open_model.ts";
import { startToken } from "../../models/spec.ts";
import { unixLines } from "../lines.ts";
import { type ChoiceAccuracy, choiceAccuracy } from "./choices.ts";
import type { ChoiceQuestion } from "./choice_task.ts";
import { type Divergence, divergence } from "./divergence.ts";
import { countWords, type Perplexity, tokenPerplexity, wordPerplexity } from "./perplexity.ts";
import { type RollingPerplexity, rollingPerplexity } from "./rolling_perplexity.ts";
import type { ScoreOptions } from "./score_windows.ts";
import { textWindows, type WindowOptions } from "./text_window.ts";
import { wikiPages } from "./wikitext.ts";

export interface EvaluationRequest {
  /** null: no perplexity. */
  readonly text: TextRequest | null;
  readonly tasks: ReadonlyMap<string, readonly ChoiceQuestion[]>;
  /** Most questions of a task, and pages of a text; default: all. */
  readonly limit?: number;
  /** The start token stands before every window and question. */
  readonly bos: boolean;
}

export interface TextRequest {
  readonly text: string;
  /** Default: all of the text. */
  readonly maxTokens?: number;
  /** Tokens; at most the context window counts. */
  readonly window: number;
  /** Default: `window`. */
  readonly stride?: number;
  /** Also the perplexity as lm-evaluation-harness computes it for WikiText; `maxLength` default: the context window. */
  readonly rolling: { readonly maxLength?: number } | null;
  /** Opens what the model is compared with; it is closed again. */
  readonly reference: (() => Promise<OpenedModel>) | null;
}

export interface Evaluation {
  readonly text: TextEvaluation | null;
  readonly tasks: Readonly<Record<string, ChoiceAccuracy>>;
}

export interface TextEvaluation extends Perplexity {
  /** As used, after the context window's limit. */
  readonly window: number;
  readonly stride: number;
  readonly bos: boolean;
  readonly words: number;
  readonly wordPerplexity: number;
  readonly rolling: (RollingPerplexity & { readonly maxLength: number; readonly prefix: number }) | null;
  readonly divergence: Divergence | null;
}

export interface EvaluationProgress {
  /** "perplexity", "pages", "divergence" or the name of a task. */
  readonly phase: string;
  readonly done: number;
  readonly total: number;
}

export interface EvaluateOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EvaluationProgress) => void;
}

/** @throws {OatmillError} invalid_tokenizer, invalid_request when there is nothing to score, cancelled */
export async function evaluate(
  model: OpenedModel,
  request: EvaluationRequest,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { engine } = model, tokenizer = needTokenizer(model), { limit, bos } = request;
  const text = request.text === null
    ? null
    : await evaluateText(model, { ...request.text, limit, bos }, options);
  const tasks: Record<string, ChoiceAccuracy> = {};
  for (const [name, questions] of request.tasks) {
    const start = bos ? startToken(model.spec) : null;
    const some = questions.slice(0, limit);
    tasks[name] = await choiceAccuracy({ engine, tokenizer, bos: start }, some, phase(name, options));
  }
  return { text, tasks };
}

const phase = (name: string, { signal, onProgress }: EvaluateOptions): ScoreOptions => ({
  signal,
  onProgress: (done, total) => onProgress?.({ phase: name, done, total }),
});

async function evaluateText(
  model: OpenedModel,
  request: TextRequest & Pick<EvaluationRequest, "limit" | "bos">,
  options: EvaluateOptions,
): Promise<TextEvaluation> {
  const { engine, spec } = model, tokenizer = needTokenizer(model);
  const text = unixLines(request.text);
  const ids = tokenizer.encode(text, { addSpecialTokens: false }).slice(0, request.maxTokens);
  const words = countWords(request.maxTokens === undefined ? text : tokenizer.decode(ids));
  const window = Math.min(request.window, engine.contextLength);
  const stride = Math.min(request.stride ?? window, window);
  const windows = { window, stride, bos: request.bos ? startToken(spec) : null };
  const perplexity = await tokenPerplexity(engine, ids, { ...windows, ...phase("perplexity", options) });
  return {
    ...perplexity,
    ...windows,
    bos: request.bos,
    words,
    wordPerplexity: wordPerplexity(perplexity, words),
    rolling: request.rolling && await rollingOf(model, { ...request, text }, options),
    divergence: request.reference &&
      await divergenceFrom(request.reference, { model, ids, windows }, options),
  };
}

async function rollingOf(
  { engine, spec, ...model }: OpenedModel,
  { text, limit, rolling }: Pick<TextRequest, "text" | "rolling"> & Pick<EvaluationRequest, "limit">,
  options: EvaluateOptions,
) {
  const maxLength = Math.min(rolling?.maxLength ?? engine.contextLength, engine.contextLength);
  const prefix = startToken(spec), pages = wikiPages(text).slice(0, limit);
  const scored = await rollingPerplexity({ engine, tokenizer: needTokenizer(model) }, pages, {
    maxLength,
    prefix,
    ...phase("pages", options),
  });
  return { ...scored, maxLength, prefix };
}

async function divergenceFrom(
  open: () => Promise<OpenedModel>,
  { model, ids, windows }: {
    readonly model: OpenedModel;
    readonly ids: readonly number[];
    readonly windows: WindowOptions;
  },
  options: EvaluateOptions,
): Promise<Divergence> {
  const { engine } = await open();
  try {
    return await divergence(engine, model.engine, textWindows(ids, windows), phase("divergence", options));
  } finally {
    await engine.close();
  }
}
