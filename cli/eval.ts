/** `eval`: perplexity by token and by word, multiple-choice tasks, divergence from another model; images: eval_images.ts. */
import { readTask } from "../compress/evaluation/choice_task.ts";
import { evaluate, type Evaluation, type TextRequest } from "../compress/evaluation/evaluate.ts";
import { openModel, type OpenModelOptions } from "../engine/open_model.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import { throughAdapter } from "./adapter.ts";
import { evalImages } from "./eval_images.ts";
import { printResult, ProgressBar, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface EvalOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly autotune?: boolean;
  /** PEFT's folder. */
  readonly adapter?: string;
  readonly text?: string;
  readonly kv?: KvFormat;
  readonly maxTokens?: number;
  readonly window: number;
  readonly stride?: number;
  readonly bos?: boolean;
  readonly wordPerplexity?: "lm-eval";
  readonly maxLength?: number;
  readonly reference?: string;
  readonly referenceValues: OpenModelOptions["values"];
  readonly tasks?: readonly string[];
  readonly data?: string;
  readonly limit?: number;
  readonly images?: string;
  readonly json?: boolean;
}

export async function evalCommand(path: string, options: EvalOptions): Promise<void> {
  if (options.images !== undefined) {
    const { images, limit, json, values } = options;
    return await evalImages(path, images, { open: openOptions(options, values), limit, json });
  }
  // What cannot be read is said before a model is loaded.
  const text = options.text === undefined ? null : await textRequest(options.text, options);
  const tasks = new Map(
    await Promise.all(
      (options.tasks ?? []).map(async (name) => [name, await readTask(options.data!, name)] as const),
    ),
  );
  const bar = new ProgressBar();
  const abort = new AbortController();
  const stop = () => abort.abort();
  const model = await openModel(path, { ...openOptions(options, options.values), ...cacheOptions(options) });
  Deno.addSignalListener("SIGINT", stop);
  try {
    const start = performance.now();
    const { limit, bos = false } = options;
    const through = await throughAdapter(model, options.adapter);
    const found = await evaluate(through, { text, tasks, limit, bos }, {
      signal: abort.signal,
      onProgress: (p) => bar.show(p),
    });
    bar.end();
    const seconds = (performance.now() - start) / 1000;
    printResult({ model: model.name, ...evalReport(found), seconds }, {
      json: options.json,
      lines: () => reportLines(found),
    });
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
    await model.engine.close();
  }
}

const openOptions = (options: EvalOptions, values: OpenModelOptions["values"]): OpenModelOptions => ({
  values,
  threads: options.threads,
  kvFormat: options.kv,
  tuning: tuningOf(options),
});

/**
 * A KV cache of what is read: windows alone need no more context than their own, and find nothing of earlier ones (SmolLM2
 * in f32: 20,480 tokens would leave 940 MB behind them). Tasks and the pieces of a divergence look back.
 */
function cacheOptions({ tasks, reference, wordPerplexity, window }: EvalOptions): OpenModelOptions {
  return {
    prefixCache: tasks !== undefined || reference !== undefined,
    ...tasks === undefined && wordPerplexity === undefined ? { contextLength: window } : {},
  };
}

async function textRequest(path: string, options: EvalOptions): Promise<TextRequest> {
  const { maxTokens, window, stride, wordPerplexity, maxLength, reference } = options;
  return {
    text: await Deno.readTextFile(path),
    maxTokens,
    window,
    stride,
    rolling: wordPerplexity === undefined ? null : { maxLength },
    reference: reference === undefined ? null : () =>
      openModel(reference, {
        ...openOptions(options, options.referenceValues),
        maxSequences: 1, // it is asked for one window at a time
        contextLength: window,
      }),
  };
}

/** With the fields' names that stay the same. */
function evalReport({ text, tasks }: Evaluation) {
  return {
    tokens: text?.tokens ?? 0,
    scored: text?.scored ?? 0,
    window: text?.window ?? null,
    stride: text?.stride ?? null,
    bos: text?.bos ?? null,
    words: text?.words ?? 0,
    nll: text?.nll ?? null,
    token_perplexity: text?.perplexity ?? null,
    word_perplexity: text?.wordPerplexity ?? null,
    ...text?.rolling ? { lm_eval: rollingReport(text.rolling) } : {},
    ...text?.divergence ? { divergence: divergenceReport(text.divergence) } : {},
    tasks: Object.fromEntries(
      Object.entries(tasks).map(([name, t]) => [name, {
        accuracy: t.accuracy,
        accuracy_norm: t.accuracyNorm,
        accuracy_norm_chars: t.accuracyNormChars,
        standard_error: t.standardError,
        standard_error_norm: t.standardErrorNorm,
        standard_error_norm_chars: t.standardErrorNormChars,
        count: t.count,
      }]),
    ),
  };
}

const rollingReport = (r: NonNullable<NonNullable<Evaluation["text"]>["rolling"]>) => ({
  word_perplexity: r.wordPerplexity,
  byte_perplexity: r.bytePerplexity,
  bits_per_byte: r.bitsPerByte,
  pages: r.pages,
  tokens: r.tokens,
  words: r.words,
  bytes: r.bytes,
  nll: r.nll,
  max_length: r.maxLength,
  prefix_token: r.prefix,
});

const divergenceReport = (d: NonNullable<NonNullable<Evaluation["text"]>["divergence"]>) => ({
  tokens: d.tokens,
  kl_mean: d.mean,
  kl_standard_error: d.standardError,
  kl_median: d.median,
  kl_p99: d.p99,
  kl_max: d.max,
  top1_agreement: d.top1Agreement,
  probability_change_mean: d.meanProbabilityChange,
  probability_change_rms: d.rmsProbabilityChange,
  reference_token_perplexity: d.referencePerplexity,
  token_perplexity: d.perplexity,
});

function reportLines({ text, tasks }: Evaluation): string[] {
  const names = Object.entries(tasks);
  return [
    ...text ? textLines(text) : [],
    ...names.length === 0 ? [] : table([
      ["task", "accuracy", "+-", "norm (tokens)", "+-", "norm (chars)", "+-", "questions"],
      ...names.map(([name, t]) => [
        name,
        ...[t.accuracy, t.standardError, t.accuracyNorm, t.standardErrorNorm],
        ...[t.accuracyNormChars, t.standardErrorNormChars, t.count],
      ]),
    ]),
  ];
}

function textLines(t: NonNullable<Evaluation["text"]>): string[] {
  const { rolling: r, divergence: d } = t;
  const windows = `windows of ${t.window}, stride ${t.stride}, ${t.bos ? "BOS before each" : "no BOS"}`;
  return [
    `token perplexity  ${t.perplexity.toFixed(4)}  (${t.scored} of ${t.tokens} tokens scored, ${windows})`,
    `word perplexity   ${t.wordPerplexity.toFixed(4)}  (${t.words} words)`,
    ...r === null ? [] : [
      `lm-eval           ${r.wordPerplexity.toFixed(4)} by word, ${r.bytePerplexity.toFixed(4)} by byte, ` +
      `${
        r.bitsPerByte.toFixed(4)
      } bits per byte  (${r.pages} pages, ${r.tokens} tokens, windows of ${r.maxLength})`,
    ],
    ...d === null ? [] : [
      `divergence        ${d.mean.toFixed(5)} +- ${d.standardError.toFixed(5)} nats a token ` +
      `(median ${d.median.toFixed(5)}, 99 % ${d.p99.toFixed(4)}, most ${
        d.max.toFixed(4)
      }; ${d.tokens} tokens)`,
      `same first token  ${(100 * d.top1Agreement).toFixed(2)} %`,
      `probability       ${(100 * d.meanProbabilityChange).toFixed(3)} % mean change, ` +
      `${(100 * d.rmsProbabilityChange).toFixed(3)} % RMS`,
      `reference         ${d.referencePerplexity.toFixed(4)} token perplexity, here ${
        d.perplexity.toFixed(4)
      }`,
    ],
  ];
}
