/** A checkpoint of random weights in memory, for tests of any spec. */
import { encoderWeights } from "../encoder_spec.ts";
import type { Checkpoint, Weight, WeightRole } from "../checkpoint.ts";
import {
  blockNorms,
  blockSpec,
  hasFinalNorm,
  type LinearKind,
  linearShapes,
  type ModelSpec,
  type NormShape,
  normShape,
  readsTokens,
  routerShape,
} from "../spec.ts";

/** Weights of matrices keep the size of their inputs; norms are near 1, biases near 0. */
export function randomCheckpoint(spec: ModelSpec, seed = 1): Checkpoint {
  let state = seed;
  const random = () => { // uniform, of variance 1
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32 - 0.5) * Math.sqrt(12);
  };
  const weights = new Map<string, Weight>();
  const add = (role: string, shape: readonly number[], mean: number, size: number) => {
    const data = Float32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      () => mean + size * random(),
    );
    weights.set(role, { data, shape });
  };
  const norm = (role: string, { length, bias }: NormShape) => {
    add(role, [length], 1, 0.1);
    if (bias) add(`${role}.bias`, [length], 0, 0.2);
  };
  const table = [spec.vocabSize, spec.hiddenSize];
  if (readsTokens(spec)) add("embedding", table, 0, 1);
  for (const { role, shape, bias } of encoderWeights(spec)) {
    if (role === "embeddingNorm" || role === "finalNorm") norm(role, { length: shape[0], bias: bias > 0 });
    else {
      add(role, shape, 0, shape[1] ? shape[1] ** -0.5 : 1);
      if (bias > 0) add(`${role}.bias`, [bias], 0, 0.2);
    }
  }
  if (spec.learnedPositions) add("positions", [spec.contextLength, spec.hiddenSize], 0, 1);
  for (let i = 0; i < spec.blocks; i++) {
    const block = `block.${i}`;
    for (const [name, shape] of Object.entries(blockNorms(spec))) norm(`${block}.${name}`, shape);
    const router = routerShape(spec);
    if (router) add(`${block}.router`, router, 0, router[1] ** -0.5);
    for (const [name, [dOut, dIn]] of Object.entries(linearShapes(blockSpec(spec, i)))) {
      add(`${block}.${name}`, [dOut, dIn], 0, dIn ** -0.5);
      if (spec.biases.includes(name as LinearKind)) add(`${block}.${name}.bias`, [dOut], 0, 0.2);
    }
  }
  if (hasFinalNorm(spec)) norm("finalNorm", normShape(spec));
  if (spec.tiedEmbeddings && readsTokens(spec)) weights.set("head", weights.get("embedding")!);
  else if (readsTokens(spec)) add("head", table, 0, spec.hiddenSize ** -0.5);
  return {
    spec,
    path: "random",
    format: "safetensors",
    tensorBytes: [...weights.values()].reduce((n, { data }) => n + data.byteLength, 0),
    tokenizerFiles: null,
    has: (role: WeightRole) => weights.has(role),
    read(role) {
      const weight = weights.get(role);
      return weight ? Promise.resolve(weight) : Promise.reject(new RangeError(`No weight ${role}`));
    },
    close() {},
  };
}
