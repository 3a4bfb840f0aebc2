/**
 * A plain float64 forward of any ModelSpec, written from the formulas and not from the engine: it proves that specs, names
 * and formats are right. For tests only; slow.
 */
import type { Checkpoint, WeightRole } from "../checkpoint.ts";
import { type Activation, blockSpec, type LinearName, type ModelSpec, type RopeSpec } from "../spec.ts";

type Matrix = Float32Array;
/** `[tokens][width]` */
type Rows = Float64Array[];

export class ReferenceModel {
  private constructor(readonly spec: ModelSpec, readonly weights: ReadonlyMap<WeightRole, Matrix>) {}

  static async load(checkpoint: Checkpoint): Promise<ReferenceModel> {
    const { spec } = checkpoint;
    const vectors: WeightRole[] = ["embedding", "head", "finalNorm"];
    const parts = ["q", "k", "v", "o", "gate", "up", "down", "attnNorm", "mlpNorm"] as const;
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
    const x = this.#blocks(ids);
    const rows = all ? x : x.slice(-1);
    return rows.map((row) => multiply(this.#weight("head"), this.#norm("finalNorm", row)));
  }

  /** Hidden states after the final norm, `[ids.length][hidden]`. */
  hiddenStates(ids: readonly number[]): Rows {
    return this.#blocks(ids).map((row) => this.#norm("finalNorm", row));
  }

  #blocks(ids: readonly number[]): Rows {
    const { spec } = this;
    const embedding = this.#weight("embedding");
    const width = spec.hiddenSize;
    const x: Rows = ids.map((id) => Float64Array.from(embedding.subarray(id * width, (id + 1) * width)));
    for (let b = 0; b < spec.blocks; b++) {
      const block = `block.${b}` as const;
      addTo(x, this.#attention(b, x.map((row) => this.#norm(`${block}.attnNorm`, row))));
      addTo(x, this.#mlp(block, x.map((row) => this.#norm(`${block}.mlpNorm`, row))));
    }
    return x;
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
    const { kind, eps } = this.spec.norm;
    const weight = this.#weight(role), bias = this.weights.get(`${role}.bias`);
    const mean = kind === "layernorm" ? sum(x) / x.length : 0;
    const scale = 1 / Math.sqrt(sum(x.map((v) => (v - mean) ** 2)) / x.length + eps);
    return x.map((v, i) => (v - mean) * scale * weight[i] + (bias?.[i] ?? 0));
  }

  #attention(index: number, x: Rows): Rows {
    const block = `block.${index}` as const;
    const { heads, kvHeads, headDim, scale, window, rope, causal } = blockSpec(this.spec, index).attention;
    const project = (name: LinearName) => x.map((row) => this.#linear(block, name, row));
    const [q, k, v] = [project("q"), project("k"), project("v")];
    if (rope) {
      for (const rows of [q, k]) rows.forEach((row, position) => rotate(row, headDim, position, rope));
    }
    return x.map((_, i) => {
      const out = new Float64Array(heads * headDim);
      const first = window === null ? 0 : Math.max(0, i - window + 1);
      for (let h = 0; h < heads; h++) {
        const kv = Math.floor(h / (heads / kvHeads)) * headDim;
        const query = q[i].subarray(h * headDim, (h + 1) * headDim);
        const seen = k.slice(first, causal ? i + 1 : k.length);
        const shares = softmax(seen.map((key) => scale * dot(query, key.subarray(kv, kv + headDim))));
        shares.forEach((share, j) => {
          for (let d = 0; d < headDim; d++) out[h * headDim + d] += share * v[first + j][kv + d];
        });
      }
      return this.#linear(block, "o", out);
    });
  }

  #mlp(block: `block.${number}`, x: Rows): Rows {
    const { gated, activation } = this.spec.mlp;
    const act = ACTIVATE[activation];
    return x.map((row) => {
      const up = this.#linear(block, "up", row);
      const gate = gated ? this.#linear(block, "gate", row) : null;
      return this.#linear(block, "down", gate ? up.map((u, i) => act(gate[i]) * u) : up.map(act));
    });
  }
}

const ACTIVATE: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(x, 0),
};

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

function addTo(x: Rows, y: Rows): void {
  x.forEach((row, i) => row.forEach((v, j) => row[j] = v + y[i][j]));
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
