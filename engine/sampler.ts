/**
 * Chooses the next token from one row of logits. The order is the field's: bias and penalties, temperature, top-k, top-p,
 * min-p, draw. Logits stay in WASM memory; only candidates that can be drawn at all cross into JavaScript.
 */
import type { BaseKernels } from "../kernels/abi.ts";
import { Random } from "./random.ts";
import type { SamplingOptions, TokenLogprobs } from "./types.ts";

/** The kernels that sampling needs. */
export type SamplingKernels = Pick<BaseKernels, "argmax" | "max" | "log_sum_exp" | "select_at_least">;

export interface LogitsRow {
  readonly kernels: SamplingKernels;
  /** All of WASM memory. */
  readonly floats: Float32Array;
  readonly ints: Int32Array;
  /** Byte address of the row and its length. */
  readonly address: number;
  readonly vocab: number;
  /** Byte address of i32 `[vocab]` scratch. */
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

  /** Changes the row in place (bias, penalties) and returns the chosen token. */
  sample(row: LogitsRow): number {
    this.#penalise(row);
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
    if (topK === 0 && topP >= 1 && minP === 0) return drawFromAll(row, 1 / temperature, this.#random.next());
    const { floats, vocab, kernels } = row, at = row.address / 4;
    const logit = (token: number) => floats[at + token];
    const best = kernels.max(row.address, vocab);
    let tokens = topK > 0 ? topTokens(row, topK) : select(
      row,
      Math.max(
        best - temperature * (NEGLIGIBLE + Math.log(vocab)),
        // All that are less likely than (1 - p) / vocab hold less together than what top-p leaves out.
        temperature *
          (kernels.log_sum_exp(row.address, vocab, 1 / temperature) + Math.log((1 - topP) / vocab)),
        best + temperature * Math.log(minP),
      ),
    );
    // Likeliest first. The order decides only which of equals top-p keeps.
    if (topP < 1) tokens = tokens.sort((i, j) => logit(j) - logit(i) || i - j);
    let weights = Float64Array.from(tokens, (t) => Math.exp((logit(t) - best) / temperature));
    let total = topK > 0 ? sum(weights) : 0;
    if (topP < 1) {
      if (topK === 0) {
        total = Math.exp(kernels.log_sum_exp(row.address, vocab, 1 / temperature) - best / temperature);
      }
      let n = 0;
      for (let kept = 0; n < weights.length && kept < topP * total;) kept += weights[n++];
      weights = weights.subarray(0, Math.max(1, n));
    }
    // The best token's weight is 1 by construction.
    if (minP > 0) weights = weights.map((w) => w < minP ? 0 : w);
    total = sum(weights);
    let u = this.#random.next() * total;
    let last = 0;
    for (let i = 0; i < weights.length && u >= 0; i++) {
      if (weights[i] > 0) last = i;
      u -= weights[i];
    }
    return tokens[last];
  }
}

/** Below this many tokens a plain scan is faster than another kernel call. */
const SCAN = 32;

/**
 * Inverse of the cumulative distribution at `u` by bisection: each half's mass comes from the log-sum-exp kernel, about two
 * passes over the row in all (0.1 ms for 49,152 tokens; a list of all candidates in JavaScript took 0.87 ms).
 */
function drawFromAll(row: LogitsRow, inverseTemperature: number, u: number): number {
  const { floats, kernels, address, vocab } = row;
  const total = kernels.log_sum_exp(address, vocab, inverseTemperature);
  let from = 0, count = vocab;
  while (count > SCAN) {
    const half = count >> 1;
    const mass = Math.exp(kernels.log_sum_exp(address + from * 4, half, inverseTemperature) - total);
    if (u < mass) {
      count = half;
    } else {
      u -= mass;
      from += half;
      count -= half;
    }
  }
  let last = from;
  for (let i = from; i < from + count; i++) {
    const p = Math.exp(floats[address / 4 + i] * inverseTemperature - total);
    if (p > 0) last = i;
    u -= p;
    if (u < 0) return i;
  }
  return last; // u lies in what rounding left over
}

function sum(values: Float64Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** Tokens whose logits are at least `threshold`, by id. */
function select(row: LogitsRow, threshold: number): Int32Array {
  const n = row.kernels.select_at_least(row.address, row.vocab, threshold, row.candidates, row.vocab);
  return row.ints.slice(row.candidates / 4, row.candidates / 4 + n);
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
  const best = row.kernels.max(row.address, row.vocab);
  const logit = (token: number) => row.floats[row.address / 4 + token];
  // Widen the net until enough are in it: a cast costs far less than sorting what a wide one brings.
  for (let width = 0.5;; width *= 2) {
    const list = select(row, width > 1e4 ? -Infinity : best - width);
    if (list.length >= Math.min(count, row.vocab) || width > 1e4) {
      return list.sort((a, b) => logit(b) - logit(a) || a - b).slice(0, count);
    }
  }
}
