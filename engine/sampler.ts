/**
 * Chooses the next token from one row of logits. The order is the field's: bias and penalties, temperature, top-k, top-p,
 * min-p, draw. What touches many logits is a kernel: for a row of 49,152 a greedy choice takes about 6 microseconds, top-k
 * 45, a draw from all 60, top-p 85 (140 of a flat distribution, where sorting in JavaScript took 5 ms).
 */
import type { BaseKernels } from "../kernels/abi.ts";
import { Random } from "./random.ts";
import type { SamplingOptions, TokenLogprobs } from "./types.ts";

/** The kernels that sampling needs. */
export type SamplingKernels = Pick<
  BaseKernels,
  | "argmax"
  | "max"
  | "log_sum_exp"
  | "select_at_least"
  | "block_max"
  | "exp_sums"
  | "exp_sum"
  | "draw_all"
  | "draw"
  | "keep_likeliest"
>;

export interface LogitsRow {
  readonly kernels: SamplingKernels;
  /** All of WASM memory. */
  readonly floats: Float32Array;
  readonly ints: Int32Array;
  /** Byte address of the row and its length. */
  readonly address: number;
  readonly vocab: number;
  /** Byte address of i32 `[vocab]` scratch and `logitsScratchBytes(vocab)` behind it. */
  readonly candidates: number;
}

/**
 * A token whose probability is below e^-17 / vocab of the best one's is never drawn: together they hold less than 5e-8,
 * below the resolution of f32 logits.
 */
const NEGLIGIBLE = 17;

/** State of one sequence's sampling: its random numbers and the tokens it has seen. */
export class Sampler {
  readonly #random: Random;
  readonly #o: SamplingOptions;
  /** Generated tokens (presence and frequency) and all tokens (repeat penalty). */
  readonly #generated = new Map<number, number>();
  readonly #seen = new Set<number>();

  constructor(options: SamplingOptions, promptIds: readonly number[]) {
    this.#o = options;
    this.#random = new Random(options.seed);
    if (options.repeatPenalty !== 1) { for (const t of promptIds) this.#seen.add(t); }
  }

  /**
   * Changes the row in place (bias, penalties, mask) and returns the chosen token.
   * @param mask a bit a token, `[ceil(vocab / 32)]`: what may be chosen; null = all
   */
  sample(row: LogitsRow, mask: Int32Array | null = null): number {
    this.#penalise(row);
    if (mask) forbid(row, mask);
    const token = this.#o.temperature === 0 ? row.kernels.argmax(row.address, row.vocab) : this.#draw(row);
    this.#generated.set(token, (this.#generated.get(token) ?? 0) + 1);
    this.#seen.add(token);
    return token;
  }

  #penalise({ floats, address, vocab }: LogitsRow): void {
    const o = this.#o;
    const at = address / 4;
    if (o.repeatPenalty !== 1) {
      for (const t of this.#seen) {
        const l = floats[at + t];
        floats[at + t] = l > 0 ? l / o.repeatPenalty : l * o.repeatPenalty;
      }
    }
    if (o.presencePenalty !== 0 || o.frequencyPenalty !== 0) {
      for (const [t, n] of this.#generated) floats[at + t] -= o.presencePenalty + n * o.frequencyPenalty;
    }
    for (const [t, bias] of o.logitBias) if (t >= 0 && t < vocab) floats[at + t] += bias;
  }

  #draw(row: LogitsRow): number {
    const { temperature, topK, topP, minP } = this.#o;
    const { kernels, address, vocab, candidates } = row;
    const inverse = 1 / temperature, u = this.#random.next();
    const negligible = -(NEGLIGIBLE + Math.log(vocab));
    if (topK === 0 && topP >= 1 && minP === 0) {
      return kernels.draw_all(address, vocab, inverse, negligible, u, scratchOf(row));
    }
    const best = kernels.max(address, vocab);
    let count: number, total = 0;
    if (topK > 0) {
      count = selectTop(row, topK);
      if (topP < 1) total = kernels.exp_sum(address, candidates, count, inverse, best);
    } else {
      if (topP < 1) total = kernels.exp_sums(address, vocab, inverse, negligible, scratchOf(row));
      // All that are less likely than (1 - p) / vocab hold less together than what top-p leaves out.
      const least = Math.max(negligible, Math.log(total * (1 - topP) / vocab), Math.log(minP));
      count = kernels.select_at_least(address, vocab, best + temperature * least, candidates, vocab);
    }
    if (topP < 1) {
      count = kernels.keep_likeliest(address, candidates, count, inverse, best, topP * total);
    }
    // The best token's weight is 1 by construction, and min-p is relative to it.
    return kernels.draw(address, candidates, count, inverse, best, minP, u);
  }
}

/** No chance for what the mask does not have: e^-Infinity is 0 to the kernels. */
function forbid({ floats, address, vocab }: LogitsRow, mask: Int32Array): void {
  const at = address / 4;
  for (let word = 0; word * 32 < vocab; word++) {
    const bits = mask[word];
    if (bits === -1) continue;
    const from = at + word * 32, end = Math.min(32, vocab - word * 32);
    if (bits === 0) floats.fill(-Infinity, from, from + end);
    else for (let i = 0; i < end; i++) if ((bits >>> i & 1) === 0) floats[from + i] = -Infinity;
  }
}

const scratchOf = (row: LogitsRow): number => row.candidates + row.vocab * 4;

/**
 * Puts the tokens of the `count` largest logits first among the candidates, in no order, ties to the lower id; returns how
 * many there are. The count-th largest of the blocks' maxima is a bound that at least `count` logits reach and few more, so
 * two passes over the row are enough.
 */
function selectTop(row: LogitsRow, count: number): number {
  const { kernels, floats, ints, address, vocab, candidates } = row;
  const maxima = scratchOf(row), blocks = kernels.block_max(address, vocab, maxima);
  let bound = -Infinity;
  if (blocks >= count) {
    kernels.select_at_least(maxima, blocks, -Infinity, candidates, blocks);
    const kept = kernels.keep_likeliest(maxima, candidates, blocks, 0, 0, count);
    bound = Infinity;
    for (let i = 0; i < kept; i++) bound = Math.min(bound, floats[maxima / 4 + ints[candidates / 4 + i]]);
  }
  const found = kernels.select_at_least(address, vocab, bound, candidates, vocab);
  return kernels.keep_likeliest(address, candidates, found, 0, 0, count);
}

/** log-softmax of the untouched row at `token`, natural log. */
export function logprobOf(row: LogitsRow, token: number): number {
  return row.floats[row.address / 4 + token] - row.kernels.log_sum_exp(row.address, row.vocab, 1);
}

/** Log-probability of `token` and of the `count` likeliest tokens. Call before the row is changed. */
export function logprobs(row: LogitsRow, count: number): { of: (token: number) => TokenLogprobs } {
  const lse = row.kernels.log_sum_exp(row.address, row.vocab, 1);
  // A copy is needed only of what may be asked for later: the logits before penalties.
  const copy = row.floats.slice(row.address / 4, row.address / 4 + row.vocab);
  const top = [...topTokens(row, count)].map((t) => [t, copy[t] - lse] as const);
  return { of: (token) => ({ logprob: copy[token] - lse, top }) };
}

/** Tokens of the `count` largest logits, likeliest first, ties to the lower id. */
function topTokens(row: LogitsRow, count: number): Int32Array {
  if (count === 0) return new Int32Array();
  const from = row.candidates / 4, found = selectTop(row, count);
  const logit = (token: number) => row.floats[row.address / 4 + token];
  return row.ints.slice(from, from + found).sort((a, b) => logit(b) - logit(a) || a - b);
}
