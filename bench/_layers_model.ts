/**
 * A model of nothing but copies of some linear layers, as the engine runs them: its plan is the engine's, without what
 * stands between the layers. What is measured is then what serving does, whatever the plan makes of a layer.
 */
import type { StoredPart, TensorEntry } from "../models/formats/artifact_header.ts";
import type { PackedModel } from "../models/packed.ts";
import { buildPlan } from "../models/build_plan.ts";
import type { Plan, PlanOp } from "../models/plan.ts";
import { isAdaptation, operandsOf } from "../models/plan_operands.ts";
import type { Shape2 } from "../kernels/layout.ts";
import {
  type InputKind,
  LINEAR_INPUT,
  LINEAR_NAMES,
  type LinearKind,
  type ModelSpec,
} from "../models/spec.ts";
import { Filler, syntheticModel } from "../models/synthetic.ts";

/** One way to store the layers, and how often: each copy is all layers of the input, one beside the other. */
export interface StoredCopies {
  readonly parts: readonly StoredPart[];
  readonly copies: number;
}

export interface LayersModel {
  /** With the tensors that the plan reads. */
  readonly model: PackedModel;
  readonly plan: Plan;
  /** For each way: where the operations of each of its copies end; they follow the way's before it without a gap. */
  readonly ends: readonly (readonly number[])[];
  /** Layers in a copy: those that share an input in a block also share its barriers. */
  readonly layersPerCopy: number;
}

/** Layers of one input in a block, q, k and v for example. */
export const layersOfInput = ({ mlp: { gated } }: ModelSpec, input: InputKind): LinearKind[] =>
  LINEAR_NAMES.filter((name) => LINEAR_INPUT[name] === input && (gated || name !== "gate"));

/** A spec in which every layer of the input has this shape `[dOut, dIn]`. */
function specOf(spec: ModelSpec, input: InputKind, [dOut, dIn]: Shape2, blocks: number): ModelSpec {
  const reads = input === "attn" || input === "mlp"; // the residual stream; the others write it
  const width = reads ? dOut : dIn;
  return {
    ...spec,
    blocks,
    hiddenSize: reads ? dIn : dOut,
    vocabSize: 8,
    tiedEmbeddings: true,
    biases: [],
    attention: {
      ...spec.attention,
      heads: 1,
      kvHeads: 1,
      headDim: width,
      rope: null,
      window: null,
      causal: true,
    },
    mlp: { ...spec.mlp, intermediateSize: width, experts: undefined },
  };
}

export function layersModel(
  spec: ModelSpec,
  { input, shape, blockChunks, ways }: {
    readonly input: InputKind;
    readonly shape: Shape2;
    readonly blockChunks: number;
    readonly ways: readonly StoredCopies[];
  },
): LayersModel {
  const wayOf = ways.flatMap(({ copies }, way) => new Array<number>(copies).fill(way));
  const small = specOf(spec, input, shape, wayOf.length);
  const isWanted = (size: Shape2) => size[0] === shape[0] && size[1] === shape[1];
  const whole = syntheticModel("layers", small, {
    blockChunks,
    parts: (size, block) =>
      isWanted(size) ? ways[wayOf[block]].parts : [{ part: "w", format: { kind: "q8" }, shape: size }],
    table: { kind: "q8" },
    inputScales: false,
  });
  const names = layersOfInput(spec, input);
  const full = buildPlan(whole);
  const { body, blockEnds } = onlyLayers(full.body, names);
  const ends = ways.map((_, way) => blockEnds.filter((_, block) => wayOf[block] === way));
  const plan = { ...full, body, head: [] };
  const used = new Set(body.flatMap((op) => operandsOf(op).tensors));
  const tensors = whole.tensors.filter(({ name }) => used.has(name));
  const load = (destination: (entry: TensorEntry) => Uint8Array) => {
    const filler = new Filler();
    for (const entry of tensors) filler.fill(entry, destination(entry));
    return Promise.resolve();
  };
  return { model: { ...whole, tensors, load }, plan, ends, layersPerCopy: names.length };
}

/** The operations of these layers alone, and for each block where its own end. */
function onlyLayers(
  ops: readonly PlanOp[],
  names: readonly LinearKind[],
): { body: PlanOp[]; blockEnds: number[] } {
  const weight = new RegExp(String.raw`^block\.(\d+)\.(${names.join("|")})\.`);
  const body: PlanOp[] = [], blockEnds: number[] = [];
  let block = 0, taken = false;
  for (const op of ops) {
    if (isAdaptation(op)) continue;
    const match = op.op === "linear" ? weight.exec(op.weights[0]) : null;
    if (match) block = Number(match[1]);
    const ownTile = op.op === "prepare" && names.some((name) => op.tile === `low.${name}`);
    taken = match !== null || ownTile || (op.op === "sync" && taken);
    if (!taken) continue;
    body.push(op);
    blockEnds[block] = body.length;
  }
  return { body, blockEnds };
}
