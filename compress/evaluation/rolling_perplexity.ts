/**
 * Perplexity as lm-evaluation-harness computes it for `wikitext` (the tables of OATS and others): the log-likelihood of
 * every token of a page given one prefix token (BOS, or the end token where there is no BOS) and what stands before it,
 * rolling windows of the model's context (text_window.ts), tokens without special ones. Over all pages:
 * exp(nll / words) and exp(nll / bytes), words and bytes of the page before detokenisation.
 */
import { OatmillError } from "../../errors.ts";
import type { Engine } from "../../engine/types.ts";
import type { Tokenizer } from "../../models/tokenizer.ts";
import { scoreAll, type ScoreOptions } from "./score_windows.ts";
import { rollingWindows } from "./text_window.ts";
import { detokenize, pageBytes, pageWords } from "./wikitext.ts";

export interface RollingPerplexity {
  readonly pages: number;
  readonly tokens: number;
  readonly words: number;
  readonly bytes: number;
  readonly nll: number;
  readonly wordPerplexity: number;
  readonly bytePerplexity: number;
  readonly bitsPerByte: number;
}

export interface RollingOptions extends ScoreOptions {
  /** Tokens the model reads at once; the harness takes the model's context. */
  readonly maxLength: number;
  readonly prefix: number;
}

/** @throws {OatmillError} invalid_request when the pages have no tokens, cancelled */
export async function rollingPerplexity(
  { engine, tokenizer }: {
    readonly engine: Pick<Engine, "score">;
    readonly tokenizer: Pick<Tokenizer, "encode">;
  },
  pages: readonly string[],
  options: RollingOptions,
): Promise<RollingPerplexity> {
  const windows = pages.flatMap((page) =>
    rollingWindows(tokenizer.encode(detokenize(page), { addSpecialTokens: false }), options)
  );
  if (windows.length === 0) throw new OatmillError("invalid_request", "Cannot score a text without pages");
  const { nll, scored } = await scoreAll(engine, windows, options);
  const total = (count: (page: string) => number) => pages.reduce((n, page) => n + count(page), 0);
  const words = total(pageWords), bytes = total(pageBytes);
  return {
    pages: pages.length,
    tokens: scored,
    words,
    bytes,
    nll,
    wordPerplexity: Math.exp(nll / words),
    bytePerplexity: Math.exp(nll / bytes),
    bitsPerByte: nll / bytes / Math.LN2,
  };
}
