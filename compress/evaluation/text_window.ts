/** Texts cut into what an engine scores at once: the two protocols that perplexities are stated in. */

/** Token ids that are seen together; ids[from + 1..] are scored. */
export interface TextWindow {
  readonly ids: readonly number[];
  readonly from: number;
}

/** Tokens of a window that are scored. */
export const scoredTokens = ({ ids, from }: TextWindow): number => ids.length - 1 - from;

export interface WindowOptions {
  /** Tokens of the text that stand in a window. */
  readonly window: number;
  /** Tokens from one window's beginning to the next one's; default: `window`, so that each is scored alone. */
  readonly stride?: number;
  /** Stands before each window; its first token is scored then. */
  readonly bos?: number | null;
}

/**
 * Consecutive windows of a text. Where they overlap (stride below window), a window scores what the one before has not
 * seen: every token but the first ones has at least `window - stride` tokens of context.
 * @throws {RangeError} when the stride would skip tokens
 */
export function textWindows(
  ids: readonly number[],
  { window, stride = window, bos = null }: WindowOptions,
): TextWindow[] {
  if (!(stride >= 1 && stride <= window)) throw new RangeError(`Stride ${stride} is not from 1 to ${window}`);
  const before = bos === null ? [] : [bos];
  const windows: TextWindow[] = [];
  for (let begin = 0, seen = 0; seen < ids.length; begin += stride) {
    const part = [...before, ...ids.slice(begin, begin + window)];
    windows.push({ ids: part, from: Math.max(0, before.length + seen - begin - 1) });
    seen = begin + window;
  }
  return windows.filter((w) => scoredTokens(w) > 0);
}

/**
 * Windows of a rolling log-likelihood as lm-evaluation-harness makes them (context length 1): every token is scored
 * exactly once. The first window is the prefix token and the first maxLength tokens; each later one scores the next
 * maxLength tokens after the one token before them, and a shorter last one is filled up with what stands before it.
 * The model reads at most maxLength tokens a window: the last scored one is only looked up.
 * @param options.prefix BOS, or the end token where there is no BOS
 */
export function rollingWindows(
  ids: readonly number[],
  { maxLength, prefix }: { readonly maxLength: number; readonly prefix: number },
): TextWindow[] {
  if (ids.length === 0) return [];
  const windows: TextWindow[] = [{ ids: [prefix, ...ids.slice(0, maxLength)], from: 0 }];
  for (let seen = maxLength; seen < ids.length; seen += maxLength) {
    const end = Math.min(seen + maxLength, ids.length), begin = end - maxLength - 1;
    windows.push({ ids: ids.slice(begin, end), from: seen - begin - 1 });
  }
  return windows;
}
