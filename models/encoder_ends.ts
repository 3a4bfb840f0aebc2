/**
 * What stands behind an encoder's blocks: from hidden states to one vector and to logits, in plain floats (at most a million
 * products: a millisecond beside seconds of blocks).
 */
import { OatmillError } from "../errors.ts";
import type { EncoderOutput } from "./classifier.ts";
import { type EncoderSpec, prefixLength } from "./encoder_spec.ts";
import type { ModelSpec } from "./spec.ts";
import { meanState, unitVector } from "./vectors.ts";

type States = Float32Array;

/** Names of what it reads, in the model's tensors; biases behind them. */
export const END_VECTORS = [
  "finalNorm",
  "pooler",
  "projection",
  "classifier",
  "distillationClassifier",
] as const;

export class EncoderEnds {
  constructor(
    readonly spec: ModelSpec & { readonly encoder: EncoderSpec },
    readonly vector: (name: string) => Float32Array | null,
  ) {}

  /** @param states `[n, hidden]` */
  read(states: States): Omit<EncoderOutput, "states" | "width"> {
    return { pooled: this.#pooled(states), logits: this.#logits(states) };
  }

  #pooled(states: States): Float32Array {
    const { pooling, normsPooled, projection, unitLength } = this.spec.encoder;
    const raw = pooling === "mean"
      ? this.#mean(states, 0)
      : pooling === "pooler"
      ? this.#pool(states)
      : this.#state(states, 0);
    const normed = normsPooled ? this.#norm(raw) : raw;
    const pooled = projection ? this.#linear("projection", normed) : normed;
    return unitLength ? unitVector(pooled) : pooled;
  }

  #logits(states: States): Float32Array | null {
    const { classifier, patches } = this.spec.encoder, first = this.#state(states, 0);
    switch (classifier) {
      case null:
        return null;
      case "cls":
        return this.#linear("classifier", first);
      case "pooler":
        return this.#linear("classifier", this.#pool(states));
      case "cls_and_mean_of_patches": {
        const mean = this.#mean(states, patches ? prefixLength(patches) : 1);
        return this.#linear("classifier", Float32Array.of(...first, ...mean));
      }
      case "cls_and_distillation": {
        const other = this.#linear("distillationClassifier", this.#state(states, 1));
        return this.#linear("classifier", first).map((v, i) => (v + other[i]) / 2);
      }
    }
  }

  #state(states: States, index: number): Float32Array {
    const { hiddenSize } = this.spec;
    return states.slice(index * hiddenSize, (index + 1) * hiddenSize);
  }

  /** Of the states from `first` on. */
  #mean(states: States, first: number): Float32Array {
    const { hiddenSize } = this.spec;
    return meanState(states.subarray(first * hiddenSize), hiddenSize);
  }

  #pool(states: States): Float32Array {
    const dense = this.#linear("pooler", this.#state(states, 0));
    return dense.map(this.spec.encoder.pooler === "relu" ? (v) => Math.max(v, 0) : Math.tanh);
  }

  /** The model's last norm. */
  #norm(x: Float32Array): Float32Array {
    const weight = this.#weight("finalNorm"),
      bias = this.vector("finalNorm.bias"),
      { kind, eps } = this.spec.norm;
    const mean = kind === "layernorm" ? x.reduce((a, b) => a + b, 0) / x.length : 0;
    const square = x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / x.length;
    return x.map((v, i) => (v - mean) / Math.sqrt(square + eps) * weight[i] + (bias?.[i] ?? 0));
  }

  /** A matrix of the model `[dOut, dIn]` times x, plus its bias. */
  #linear(name: string, x: Float32Array): Float32Array {
    const W = this.#weight(name), bias = this.vector(`${name}.bias`), dIn = x.length;
    return Float32Array.from({ length: W.length / dIn }, (_, row) => {
      let sum = bias?.[row] ?? 0;
      for (let j = 0, at = row * dIn; j < dIn; j++, at++) sum += W[at] * x[j];
      return sum;
    });
  }

  #weight(name: string): Float32Array {
    const weight = this.vector(name);
    if (!weight) {
      throw new OatmillError("invalid_artifact", `Cannot run the model: tensor "${name}" is missing`);
    }
    return weight;
  }
}
