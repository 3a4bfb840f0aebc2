/** `eval`: perplexity by token and by word. */
import { unixLines } from "../compress/lines.ts";
import { needTokenizer, openModel, type OpenModelOptions } from "../engine/open_model.ts";
import type { Engine } from "../engine/types.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import { OatmillError } from "../errors.ts";
import { printResult, ProgressBar } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface EvalOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly autotune?: boolean;
  readonly text: string;
  readonly kv?: KvFormat;
  readonly maxTokens?: number;
  readonly window: number;
  readonly json?: boolean;
}

/** Windows scored side by side, so that the engine's steps are full. */
const CONCURRENT = 2;

export async function evalCommand(path: string, options: EvalOptions): Promise<void> {
  const text = unixLines(await Deno.readTextFile(options.text));
  const model = await openModel(path, {
    values: options.values,
    threads: options.threads,
    kvFormat: options.kv,
    tuning: tuningOf(options),
  });
  try {
    const tokenizer = needTokenizer(model);
    const ids = tokenizer.encode(text, { addSpecialTokens: false }).slice(0, options.maxTokens);
    const words = countWords(options.maxTokens === undefined ? text : tokenizer.decode(ids));
    const bar = new ProgressBar();
    const start = performance.now();
    const { nll, scored } = await scoreWindows(model.engine, ids, {
      window: Math.min(options.window, model.engine.contextLength),
      onProgress: (done, total) => bar.show({ phase: "evaluate", done, total }),
    });
    bar.end();
    const token = Math.exp(nll / scored);
    const result = {
      model: model.name,
      tokens: ids.length,
      scored,
      words,
      nll,
      token_perplexity: token,
      // By word as the reference counts: the mean per token, times the tokens a word has.
      word_perplexity: token ** (ids.length / words),
      seconds: (performance.now() - start) / 1000,
      tasks: {},
    };
    printResult(result, {
      json: options.json,
      lines: () => [
        `token perplexity  ${result.token_perplexity.toFixed(4)}  (${scored} of ${ids.length} tokens scored)`,
        `word perplexity   ${result.word_perplexity.toFixed(4)}  (${words} words)`,
      ],
    });
  } finally {
    await model.engine.close();
  }
}

export const countWords = (text: string): number => Math.max(1, text.split(/\s+/).filter(Boolean).length);

/**
 * Negative log-likelihood over consecutive windows, each scored alone: of a window's n tokens, n - 1.
 * @throws {OatmillError} invalid_request when there is nothing to score
 */
export async function scoreWindows(
  engine: Pick<Engine, "score">,
  ids: readonly number[],
  options: { window: number; onProgress?: (done: number, total: number) => void },
): Promise<{ nll: number; scored: number }> {
  const windows: (readonly number[])[] = [];
  for (let i = 0; i < ids.length; i += options.window) windows.push(ids.slice(i, i + options.window));
  if ((windows.at(-1)?.length ?? 0) < 2) windows.pop();
  if (windows.length === 0) {
    throw new OatmillError("invalid_request", "Cannot score a text of fewer than 2 tokens");
  }
  const sums = new Float64Array(windows.length);
  let next = 0, done = 0;
  const work = async () => {
    while (next < windows.length) {
      const i = next++;
      for (const nll of await engine.score(windows[i])) sums[i] += nll;
      options.onProgress?.(++done, windows.length);
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT }, work));
  const scored = windows.reduce((sum, w) => sum + w.length - 1, 0);
  return { nll: sums.reduce((a, b) => a + b, 0), scored };
}
