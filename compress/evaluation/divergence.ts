/**
 * How far a model's predictions are from a reference's, token by token over the same windows: KL(reference || model)
 * over the whole vocabulary, whether both name the same next token first, and how much the probability of the text's
 * own next token changed (the figures of llama.cpp's `--kl-divergence`; there only the second half of a window counts).
 *
 * Both engines stand side by side and answer in turn, a few positions at a time; the prefix cache goes on where the last
 * positions ended. So no logits are stored, and beside the two models' weights it takes LOGITS_BYTES for each of them.
 */
import { OatmillError } from "../../errors.ts";
import type { Engine } from "../../engine/types.ts";
import { KV_BLOCK_TOKENS } from "../../kernels/abi.ts";
import type { ScoreOptions } from "./score_windows.ts";
import { scoredTokens, type TextWindow } from "./text_window.ts";

type LogitsEngine = Pick<Engine, "logits" | "vocabSize">;

/** Logits of one model held at once: 160 positions of a vocabulary of 49,152. */
const LOGITS_BYTES = 32 << 20;

export interface Divergence {
  /** Positions compared. */
  readonly tokens: number;
  /** KL(reference || model) in nats: mean, its standard error, median, 99th percentile, largest. */
  readonly mean: number;
  readonly standardError: number;
  readonly median: number;
  readonly p99: number;
  readonly max: number;
  /** Share of positions whose likeliest token is the same. */
  readonly top1Agreement: number;
  /** Change of the probability of the text's next token: mean and root of the mean square. */
  readonly meanProbabilityChange: number;
  readonly rmsProbabilityChange: number;
  /** exp of the mean negative log-likelihood of the same tokens. */
  readonly referencePerplexity: number;
  readonly perplexity: number;
}

/** @throws {OatmillError} invalid_request when the vocabularies differ or nothing can be compared, cancelled */
export async function divergence(
  reference: LogitsEngine,
  model: LogitsEngine,
  windows: readonly TextWindow[],
  { signal, onProgress }: ScoreOptions = {},
): Promise<Divergence> {
  const vocab = model.vocabSize, count = windows.reduce((n, w) => n + scoredTokens(w), 0);
  if (reference.vocabSize !== vocab) {
    throw new OatmillError(
      "invalid_request",
      `Cannot compare with the reference: its vocabulary has ${reference.vocabSize} tokens, the model's ${vocab}`,
      "reference",
    );
  }
  if (count === 0) {
    throw new OatmillError("invalid_request", "Cannot compare models on a text without tokens");
  }
  const rows = KV_BLOCK_TOKENS * Math.max(1, Math.floor(LOGITS_BYTES / 4 / vocab / KV_BLOCK_TOKENS));
  const sums = new Sums(count);
  for (const { ids, from, targets } of windows.flatMap((w) => parts(w, rows))) {
    const p = await reference.logits(ids, { from, signal });
    const q = await model.logits(ids, { from, signal });
    targets.forEach((target, i) => {
      const begin = i * vocab, end = begin + vocab;
      sums.add(compare(p.subarray(begin, end), q.subarray(begin, end), target));
    });
    onProgress?.(sums.done, count);
  }
  return sums.result();
}

/** Pieces of at most `rows` positions that begin where whole KV blocks end; each position's target is its next token. */
function parts({ ids, from }: TextWindow, rows: number) {
  const pieces: { ids: readonly number[]; from: number; targets: readonly number[] }[] = [];
  for (let begin = from; begin < ids.length - 1;) {
    const end = Math.min(ids.length - 1, (Math.floor(begin / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS) + rows);
    pieces.push({ ids: ids.slice(0, end), from: begin, targets: ids.slice(begin + 1, end + 1) });
    begin = end;
  }
  return pieces;
}

interface Comparison {
  readonly kl: number;
  readonly sameTop: boolean;
  /** Log-probabilities of the target. */
  readonly reference: number;
  readonly model: number;
}

/**
 * Of one position. With p = e^(a - A) / P, where A is the largest logit and P the sum of the powers, and q alike:
 * KL(p || q) = sum p (a - b) - (A + log P) + (B + log Q). In f64; rounding below zero is cut off.
 * @param a the reference's logits `[vocab]`
 * @param b the model's
 */
export function compare(a: Float32Array, b: Float32Array, target: number): Comparison {
  const topA = indexOfMax(a), topB = indexOfMax(b), maxA = a[topA], maxB = b[topB];
  let P = 0, Q = 0, weighted = 0;
  for (let i = 0; i < a.length; i++) {
    const e = Math.exp(a[i] - maxA);
    P += e;
    weighted += e * (a[i] - b[i]);
    Q += Math.exp(b[i] - maxB);
  }
  const logP = maxA + Math.log(P), logQ = maxB + Math.log(Q);
  return {
    kl: Math.max(0, weighted / P - logP + logQ),
    sameTop: topA === topB,
    reference: a[target] - logP,
    model: b[target] - logQ,
  };
}

function indexOfMax(x: Float32Array): number {
  let top = 0;
  for (let i = 1; i < x.length; i++) if (x[i] > x[top]) top = i;
  return top;
}

class Sums {
  done = 0;
  readonly #kl: Float64Array;
  #sameTop = 0;
  #change = 0;
  #squaredChange = 0;
  #reference = 0;
  #model = 0;

  constructor(count: number) {
    this.#kl = new Float64Array(count);
  }

  add({ kl, sameTop, reference, model }: Comparison): void {
    const change = Math.exp(model) - Math.exp(reference);
    this.#kl[this.done++] = kl;
    this.#sameTop += +sameTop;
    this.#change += change;
    this.#squaredChange += change * change;
    this.#reference += reference;
    this.#model += model;
  }

  result(): Divergence {
    const n = this.done, sorted = this.#kl.toSorted();
    const mean = sorted.reduce((a, b) => a + b, 0) / n;
    const squares = sorted.reduce((sum, kl) => sum + (kl - mean) ** 2, 0);
    return {
      tokens: n,
      mean,
      standardError: n > 1 ? Math.sqrt(squares / (n - 1) / n) : 0,
      median: quantile(sorted, 0.5),
      p99: quantile(sorted, 0.99),
      max: sorted[n - 1],
      top1Agreement: this.#sameTop / n,
      meanProbabilityChange: this.#change / n,
      rmsProbabilityChange: Math.sqrt(this.#squaredChange / n),
      referencePerplexity: Math.exp(-this.#reference / n),
      perplexity: Math.exp(-this.#model / n),
    };
  }
}

/** Linear between the two nearest. */
function quantile(sorted: Float64Array, q: number): number {
  const at = q * (sorted.length - 1), low = Math.floor(at), high = Math.ceil(at);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}
