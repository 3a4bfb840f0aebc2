/**
 * A plain float64 forward of any ModelSpec, written from the formulas and not from the engine: it proves that specs, names
 * and formats are right. For tests only; slow.
 */
import type { Checkpoint, WeightRole } from "../checkpoint.ts";
import type { Pixels } from "../classifier.ts";
import { encoderWeights } from "../encoder_spec.ts";
import { IMAGE_VECTORS, ImageInput } from "../image_input.ts";
import {
  type Activation,
  blockNorms,
  blockSpec,
  hasFinalNorm,
  type LinearName,
  linearNames,
  type ModelSpec,
  type NormName,
  type RopeSpec,
} from "../spec.ts";

type Matrix = Float32Array;
/** `[tokens][width]` */
type Rows = Float64Array[];

export class ReferenceModel {
  private constructor(readonly spec: ModelSpec, readonly weights: ReadonlyMap<WeightRole, Matrix>) {}

  static async load(checkpoint: Checkpoint): Promise<ReferenceModel> {
    const { spec } = checkpoint;
    const vectors: WeightRole[] = ["embedding", "positions", "head", "finalNorm"];
    vectors.push(...encoderWeights(spec).map(({ role }) => role));
    const parts = [...linearNames(spec), "router" as const, ...Object.keys(blockNorms(spec)) as NormName[]];
    for (let b = 0; b < spec.blocks; b++) {
      vectors.push(...parts.map((part): WeightRole => `block.${b}.${part}`));
    }
    const roles = vectors.flatMap((role): WeightRole[] => [role, `${role}.bias`]).filter((role) =>
      checkpoint.has(role)
    );
    const weights = new Map<WeightRole, Matrix>();
    for (const role of roles) weights.set(role, (await checkpoint.read(role)).data);
    return new ReferenceModel(spec, weights);
  }

  /** Logits `[vocab]` after the last id, or of every position with `all`. */
  logits(ids: readonly number[], all = false): Rows {
    const x = this.hiddenStates(ids), cap = this.spec.logitsSoftCap;
    const rows = (all ? x : x.slice(-1)).map((row) => multiply(this.#weight("head"), row));
    return cap ? rows.map((row) => row.map(softCap(cap))) : rows;
  }

  /** Hidden states after the final norm (if there is one) of token ids or an image, `[tokens or patches][hidden]`. */
  hiddenStates(input: readonly number[] | Pixels): Rows {
    const embedded = "data" in input ? this.#embedImage(input) : this.#embed(input);
    const norms = this.spec.encoder?.embeddingNorm;
    const x = this.#blocks(norms ? embedded.map((row) => this.#norm("embeddingNorm", row)) : embedded);
    return hasFinalNorm(this.spec) ? x.map((row) => this.#norm("finalNorm", row)) : x;
  }

  #embed(ids: readonly number[]): Rows {
    const { embeddingScale = 1, learnedPositions, hiddenSize: width } = this.spec;
    const embedding = this.#weight("embedding"), positions = learnedPositions && this.#weight("positions");
    const types = this.spec.encoder?.tokenTypes ? this.#weight("tokenTypes") : null;
    return ids.map((id, position) =>
      Float64Array.from(
        { length: width },
        (_, j) =>
          embedding[id * width + j] * embeddingScale + (positions ? positions[position * width + j] : 0) +
          (types ? types[j] : 0),
      )
    );
  }

  #embedImage(pixels: Pixels): Rows {
    const vectors = Object.fromEntries(IMAGE_VECTORS.map((name) => [name, this.weights.get(name)]));
    const { rows, patches, added } = new ImageInput(this.spec, vectors).rowsOf(pixels);
    const width = this.spec.hiddenSize, values = patches.length / rows;
    return Array.from({ length: rows }, (_, i) => {
      const projected = multiply(
        this.#weight("patch"),
        Float64Array.from(patches.subarray(i * values, (i + 1) * values)),
      );
      return projected.map((v, j) => v + added[i * width + j]);
    });
  }

  #blocks(x: Rows): Rows {
    const { parallel, blocks } = this.spec;
    for (let b = 0; b < blocks; b++) {
      const attention = this.#branch(b, "attn", x, (input) => this.#attention(b, input));
      const middle = parallel ? x : this.#sum(b, "attn", x, attention);
      const mlp = this.#branch(b, "mlp", middle, (input) => this.#mlp(`block.${b}`, input));
      x = this.#sum(b, "mlp", parallel ? this.#sum(b, "attn", x, attention) : middle, mlp);
    }
    return x;
  }

  /** What is added to x, with the norms before and behind it. */
  #branch(block: number, name: "attn" | "mlp", x: Rows, f: (input: Rows) => Rows): Rows {
    const { placement = "before" } = this.spec.norm;
    const norm = (part: "Norm" | "PostNorm", rows: Rows) =>
      rows.map((row) => this.#norm(`block.${block}.${name}${part}`, row));
    const y = f(placement === "after" ? x : norm("Norm", x));
    return placement === "around" ? norm("PostNorm", y) : y;
  }

  #sum(block: number, name: "attn" | "mlp", x: Rows, y: Rows): Rows {
    const sums = x.map((row, i) => row.map((v, j) => v + y[i][j]));
    return this.spec.norm.placement === "after"
      ? sums.map((row) => this.#norm(`block.${block}.${name}Norm`, row))
      : sums;
  }

  #weight(role: WeightRole): Matrix {
    const weight = this.weights.get(role);
    if (!weight) throw new RangeError(`No weight ${role}`);
    return weight;
  }

  #linear(block: `block.${number}`, name: LinearName, x: Float64Array): Float64Array {
    const y = multiply(this.#weight(`${block}.${name}`), x);
    const bias = this.weights.get(`${block}.${name}.bias`);
    return bias ? y.map((v, i) => v + bias[i]) : y;
  }

  #norm(role: WeightRole, x: Float64Array): Float64Array {
    return normalise(x, this.#weight(role), this.weights.get(`${role}.bias`), this.spec.norm);
  }

  /** Each head of the rows by itself. */
  #headNorm(role: WeightRole, rows: Rows): Rows {
    const weight = this.#weight(role), headDim = weight.length;
    const norm = { kind: "rmsnorm", eps: this.spec.norm.eps } as const;
    return rows.map((row) => {
      const out = row.slice();
      for (let at = 0; at < row.length; at += headDim) {
        out.set(normalise(row.subarray(at, at + headDim), weight, undefined, norm), at);
      }
      return out;
    });
  }

  #attention(index: number, x: Rows): Rows {
    const block = `block.${index}` as const;
    const { heads, kvHeads, headDim, scale, window, rope, causal, headNorms, softCap: cap } =
      blockSpec(this.spec, index).attention;
    const project = (name: "q" | "k" | "v") => {
      const rows = x.map((row) => this.#linear(block, name, row));
      return headNorms && name !== "v" ? this.#headNorm(`${block}.${name}Norm`, rows) : rows;
    };
    const [q, k, v] = [project("q"), project("k"), project("v")];
    if (rope) {
      const turns = turnsOf(rope, x.length);
      for (const rows of [q, k]) rows.forEach((row, position) => rotate(row, headDim, position, turns));
    }
    return x.map((_, i) => {
      const out = new Float64Array(heads * headDim);
      const first = window === null ? 0 : Math.max(0, i - window + 1);
      for (let h = 0; h < heads; h++) {
        const kv = Math.floor(h / (heads / kvHeads)) * headDim;
        const query = q[i].subarray(h * headDim, (h + 1) * headDim);
        const seen = k.slice(first, causal ? i + 1 : k.length);
        const scores = seen.map((key) => scale * dot(query, key.subarray(kv, kv + headDim)));
        const shares = softmax(cap ? scores.map(softCap(cap)) : scores);
        shares.forEach((share, j) => {
          for (let d = 0; d < headDim; d++) out[h * headDim + d] += share * v[first + j][kv + d];
        });
      }
      return this.#linear(block, "o", out);
    });
  }

  #mlp(block: `block.${number}`, x: Rows): Rows {
    const { experts } = this.spec.mlp;
    if (!experts) return x.map((row) => this.#mlpOf(block, "", row));
    return x.map((row) => {
      const scores = multiply(this.#weight(`${block}.router`), row);
      const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, experts.perToken);
      const all = softmax([...scores]), total = order.reduce((sum, e) => sum + all[e], 0);
      const out = new Float64Array(row.length);
      for (const e of order) {
        this.#mlpOf(block, `experts.${e}.`, row).forEach((v, i) => out[i] += all[e] / total * v);
      }
      return out;
    });
  }

  /** @param whose what stands before the layers' names */
  #mlpOf(block: `block.${number}`, whose: "" | `experts.${number}.`, row: Float64Array): Float64Array {
    const { gated, activation } = this.spec.mlp, act = ACTIVATE[activation];
    const up = this.#linear(block, `${whose}up`, row);
    const gate = gated ? this.#linear(block, `${whose}gate`, row) : null;
    return this.#linear(block, `${whose}down`, gate ? up.map((u, i) => act(gate[i]) * u) : up.map(act));
  }
}

const ACTIVATE: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(x, 0),
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)),
};

const softCap = (cap: number) => (x: number): number => cap * Math.tanh(x / cap);

function normalise(
  x: Float64Array,
  weight: Matrix,
  bias: Matrix | undefined,
  { kind, eps }: ModelSpec["norm"],
): Float64Array {
  const mean = kind === "layernorm" ? sum(x) / x.length : 0;
  const scale = 1 / Math.sqrt(sum(x.map((v) => (v - mean) ** 2)) / x.length + eps);
  return x.map((v, i) => (v - mean) * scale * weight[i] + (bias?.[i] ?? 0));
}

/** The rotations of a sequence of so many tokens. */
const turnsOf = (rope: RopeSpec, tokens: number): RopeSpec =>
  rope.long && tokens > rope.long.beyond
    ? { ...rope, inverseFrequencies: rope.long.inverseFrequencies }
    : rope;

/** In place; pair i is (i, i + dims / 2) of each head. */
function rotate(row: Float64Array, headDim: number, position: number, rope: RopeSpec): void {
  const half = rope.dims / 2;
  for (let start = 0; start < row.length; start += headDim) {
    for (let i = 0; i < half; i++) {
      const angle = position * rope.inverseFrequencies[i];
      const cos = Math.cos(angle) * rope.attentionFactor, sin = Math.sin(angle) * rope.attentionFactor;
      const a = row[start + i], b = row[start + i + half];
      row[start + i] = a * cos - b * sin;
      row[start + i + half] = b * cos + a * sin;
    }
  }
}

function softmax(x: readonly number[]): number[] {
  const max = Math.max(...x);
  const powers = x.map((v) => Math.exp(v - max));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
}

/** W `[dOut, x.length]` times x. */
function multiply(W: Matrix, x: Float64Array): Float64Array {
  const y = new Float64Array(W.length / x.length);
  for (let row = 0, at = 0; row < y.length; row++) {
    let total = 0;
    for (let column = 0; column < x.length; column++, at++) total += W[at] * x[column];
    y[row] = total;
  }
  return y;
}

const sum = (x: Float64Array): number => x.reduce((a, b) => a + b, 0);
const dot = (a: Float64Array, b: Float64Array): number => sum(a.map((v, i) => v * b[i]));

/** Maclaurin series; the tests' arguments are small, and it converges everywhere. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, total = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total); n++) {
    term *= -x * x / n;
    total += term / (2 * n + 1);
  }
  return total * 2 / Math.sqrt(Math.PI);
}
