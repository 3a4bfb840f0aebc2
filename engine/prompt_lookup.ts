/**
 * Speculation without a draft model: what follows the last occurrence of a sequence's newest tokens is proposed to come
 * again (prompt lookup; Saxena, 2023). It hits where a text quotes: summaries, code edits, answers from documents.
 *
 * Exact: a step computes the drafted tokens' rows too, and the sampler goes through their logits as it would one by one,
 * with the sequence's own random numbers, until it chooses another token than the draft. So the tokens are those without
 * speculation; only the number of steps differs.
 */

/**
 * Time of one more row in a decode step, as a share of the time of one row alone: SmolLM2-135M at 0.5, int8, 1 thread,
 * 1.2 / 1.6 / 1.8 / 2.2 / 2.6 / 2.9 for 2 / 3 / 4 / 5 / 6 / 8 rows.
 */
const ROW_COST = 0.3;
/** Weight of the newest draft in the running share of drafts that were right. */
const LEARNING_RATE = 0.15;
/** Tokens without drafts after they stopped paying; doubled with every vain probe. */
const REST = 16;
const LONGEST_REST = 256;
/** Tokens that are searched backwards: 16k take about 20 microseconds. */
const REACH = 16_384;

/** How far drafts found by matching `n` tokens are trusted. */
interface Trust {
  readonly n: number;
  /** Running share of drafted tokens that were right, given that all before them were. */
  share: number;
  rest: number;
  nextRest: number;
}

/** State of one sequence's drafts. */
export class PromptLookup {
  /** Longer matches first. The shares that they begin with let one draft be tried. */
  readonly #trusts: readonly Trust[] = [
    { n: 3, share: 0.6, rest: 0, nextRest: REST },
    { n: 2, share: 0.4, rest: 0, nextRest: REST },
  ];
  #asked: Trust = this.#trusts[0];

  /** @param maxLength tokens at which the sequence ends */
  constructor(readonly maxLength: number) {}

  /**
   * At most `max` tokens that may follow `tokens`.
   * @param decoding sequences that the step decodes, this one included: the more, the less a row of drafts pays
   */
  propose(tokens: readonly number[], max: number, decoding: number): number[] {
    const room = Math.min(max, this.maxLength - tokens.length - 1);
    if (room <= 0) return [];
    for (const trust of this.#trusts) {
      if (trust.rest > 0) {
        trust.rest--;
        continue;
      }
      const from = lastMatch(tokens, trust.n);
      if (from < 0) continue;
      this.#asked = trust;
      // Nothing pays any more, but the rest is over: a probe.
      const length = Math.max(1, Math.min(room, bestLength(trust.share, rowCost(decoding), room)));
      return continuation(tokens, from, length);
    }
    return [];
  }

  /** Hears how many tokens of the last proposal were right. */
  settle(drafted: number, accepted: number): void {
    const trust = this.#asked;
    for (let i = 0; i < accepted; i++) trust.share += LEARNING_RATE * (1 - trust.share);
    if (accepted < drafted) trust.share -= LEARNING_RATE * trust.share;
    if (bestLength(trust.share, ROW_COST, 1) > 0) {
      trust.nextRest = REST;
    } else {
      trust.rest = trust.nextRest;
      trust.nextRest = Math.min(LONGEST_REST, 2 * trust.nextRest);
    }
  }
}

/** Time of one more row as a share of the time a token takes in a step that decodes `n` sequences. */
const rowCost = (n: number): number => ROW_COST * n / (1 + ROW_COST * (n - 1));

/**
 * Drafts that give the most tokens for the time, when each is right with probability `share` if the one before was:
 * (1 + share + ... + share^k) / (1 + k cost); 0 when none pays.
 */
export function bestLength(share: number, cost: number, max: number): number {
  let best = 0, bestRate = 1, tokens = 1, right = 1;
  for (let k = 1; k <= max; k++) {
    right *= share;
    tokens += right;
    const rate = tokens / (1 + k * cost);
    if (rate > bestRate) [best, bestRate] = [k, rate];
  }
  return best;
}

/** Index behind the last earlier occurrence of the newest `n` tokens; -1 when there is none. */
function lastMatch(tokens: readonly number[], n: number): number {
  const tail = tokens.length - n;
  for (let i = tail - 1; i >= Math.max(0, tail - REACH); i--) {
    let same = 0;
    while (same < n && tokens[i + same] === tokens[tail + same]) same++;
    if (same === n) return i + n;
  }
  return -1;
}

/** `length` tokens from `from` on; past the end the text is taken to repeat what stands from `from` on. */
function continuation(tokens: readonly number[], from: number, length: number): number[] {
  const period = tokens.length - from;
  return Array.from({ length }, (_, i) => tokens[from + i % period]);
}
