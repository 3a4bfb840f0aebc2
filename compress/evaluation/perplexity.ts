/** Perplexity of a text by token, over windows, and by word as compression-results.md counts. */
import { OatmillError } from "../../errors.ts";
import type { Engine } from "../../engine/types.ts";
import { scoreAll, type ScoreOptions } from "./score_windows.ts";
import { textWindows, type WindowOptions } from "./text_window.ts";

export interface Perplexity {
  /** Of the text. */
  readonly tokens: number;
  /** Those that have something before them in their window. */
  readonly scored: number;
  /** Sum of the negative log-likelihoods, natural log. */
  readonly nll: number;
  /** exp(nll / scored) */
  readonly perplexity: number;
}

/** @throws {OatmillError} invalid_request when there is nothing to score, cancelled */
export async function tokenPerplexity(
  engine: Pick<Engine, "score">,
  ids: readonly number[],
  options: WindowOptions & ScoreOptions,
): Promise<Perplexity> {
  const windows = textWindows(ids, options);
  if (windows.length === 0) {
    throw new OatmillError(
      "invalid_request",
      `Cannot score a text of ${ids.length} tokens: it must have 2, or BOS before 1`,
    );
  }
  const { nll, scored } = await scoreAll(engine, windows, options);
  return { tokens: ids.length, scored, nll, perplexity: Math.exp(nll / scored) };
}

/**
 * By word: the mean per token, times the tokens a word has, so that tokens without context are not counted as free.
 * @param words of the text whose tokens were counted
 */
export const wordPerplexity = ({ perplexity, tokens }: Perplexity, words: number): number =>
  perplexity ** (tokens / words);

/** Words of a text, which white space parts; at least 1. */
export const countWords = (text: string): number => Math.max(1, text.split(/\s+/).filter(Boolean).length);
