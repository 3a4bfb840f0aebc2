/**
 * How much each part of a model matters: the KL divergence of the model's next tokens when only that part is replaced
 * by a quick S + L. All replacements travel through the blocks together, each with hidden states of its own, so that
 * every block is read once: one sequence of calibration text, once for each block's attention layers, each block's MLP
 * layers, and each kind of layer in all blocks (of all experts).
 */
import type { Checkpoint } from "../../models/checkpoint.ts";
import { type LinearKind, linearKind, type LinearName } from "../../models/spec.ts";
import {
  type BlockWeights,
  firstSequences,
  normaliseRows,
  type Residual,
  runBlockOver,
} from "../forward/dense_forward.ts";
import { logAddExp } from "../forward/head_job.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import { shared } from "../statistics.ts";

/** Layers of a block that are measured together. */
export const PARTS = {
  attention: ["q", "k", "v", "o"],
  mlp: ["gate", "up", "down"],
} as const satisfies Readonly<Record<string, readonly LinearKind[]>>;
export type PartName = keyof typeof PARTS;
const PART_NAMES = Object.keys(PARTS) as PartName[];

/** Tokens of the sequence: twice as many cost SmolLM2 15 s more and rank its layers the same. */
const MAX_TOKENS = 256;
/** Hidden states of all replacements together: the sequence is cut where they would be more. */
const MAX_VALUES = 1 << 26;
/** Inputs of an encoder at least: one image says little of others. */
const LEAST_INPUTS = 2;
/** Tokens over which divergences are taken, those that occur most: the rest have a few percent of the probability. */
const MAX_VOCABULARY = 8192;

export interface Divergences {
  /** By block. */
  readonly parts: readonly Readonly<Record<PartName, number>>[];
  /** Of all blocks' layers of a kind. */
  readonly kinds: Readonly<Partial<Record<LinearKind, number>>>;
}

interface SensitivityContext {
  readonly checkpoint: Checkpoint;
  readonly pool: LinalgPool;
  /** Layers that may be replaced. */
  readonly names: readonly LinearName[];
}

/** A block, with weights that may not be its own. */
interface BlockRun {
  readonly block: number;
  readonly weights: BlockWeights;
}

const PLAIN = { collect: false, momentSequences: 0, write: true, sink: false };

export class Sensitivity {
  /** `[slots, length, hidden]`: one a kind, then the dense model, then two a block. */
  readonly #states: Float32Array<SharedArrayBuffer>;
  /** Sequences of a slot, and tokens of each. */
  readonly #sequences: number;
  readonly #length: number;
  readonly #width: number;
  readonly #kinds: readonly LinearKind[];
  #block = 0;

  /** @param calibration hidden states before the first block; of a decoder the first sequence is taken, of an encoder several */
  constructor(readonly context: SensitivityContext, calibration: Residual) {
    const { spec } = context.checkpoint;
    this.#kinds = [...new Set(context.names.map(linearKind))];
    const slots = this.#kinds.length + 1 + PART_NAMES.length * spec.blocks;
    this.#width = spec.hiddenSize;
    const most = Math.min(MAX_TOKENS, Math.floor(MAX_VALUES / (slots * this.#width)));
    this.#length = Math.max(2, Math.min(calibration.length, most));
    const several = Math.max(LEAST_INPUTS, Math.floor(most / this.#length));
    this.#sequences = spec.attention.causal ? 1 : Math.max(1, Math.min(several, calibration.sequences));
    this.#states = shared(slots * this.#sequences * this.#length * this.#width);
    const first = firstSequences(calibration, this.#sequences, this.#width).values as Float32Array;
    const size = this.#length * this.#width, whole = calibration.length * this.#width;
    for (let slot = 0; slot <= this.#kinds.length; slot++) {
      for (let i = 0; i < this.#sequences; i++) {
        this.#slot(slot).set(first.subarray(i * whole, i * whole + size), i * size);
      }
    }
  }

  /** Hidden states of all slots, and how many of them say anything so far. */
  get states(): { readonly values: Float32Array<SharedArrayBuffer>; readonly length: number } {
    const used = this.#dense + 1 + PART_NAMES.length * this.#block;
    return { values: this.#states, length: this.#slot(0, used).length };
  }

  /** Goes on before this block, with the states that there were. */
  resume(block: number): void {
    this.#block = block;
  }

  get #dense(): number {
    return this.#kinds.length;
  }

  /** Hidden states of `count` slots. */
  #slot(slot: number, count = 1): Float32Array<SharedArrayBuffer> {
    const size = this.#sequences * this.#length * this.#width;
    return this.#states.subarray(slot * size, (slot + count) * size);
  }

  #run(slot: number, count: number, { block, weights }: BlockRun): Promise<unknown> {
    const residual = {
      values: this.#slot(slot, count),
      sequences: count * this.#sequences,
      length: this.#length,
    };
    return runBlockOver(residual, weights, { ...this.context, ...PLAIN, block });
  }

  /** Takes the next block: its weights, and what replaces them, by name `[dOut, dIn]`. */
  async advance(
    weights: BlockWeights,
    replacements: Readonly<Partial<Record<LinearName, Float32Array<SharedArrayBuffer>>>>,
  ): Promise<void> {
    const dense = this.#dense, { names } = this.context;
    const block = this.#block++;
    const replaced = (some: readonly LinearKind[]): BlockRun => ({
      block,
      weights: {
        ...weights,
        ...Object.fromEntries(
          names.filter((name) => some.includes(linearKind(name)) && replacements[name]).map((name) => [name, {
            ...weights[name],
            data: replacements[name]!,
          }]),
        ),
      },
    });
    const earlier = PART_NAMES.length * block, added = dense + 1 + earlier;
    PART_NAMES.forEach((_, i) => this.#slot(added + i).set(this.#slot(dense)));
    await Promise.all([
      ...this.#kinds.map((kind, i) => this.#run(i, 1, replaced([kind]))),
      ...PART_NAMES.map((part, i) => this.#run(added + i, 1, replaced(PARTS[part]))),
      this.#run(dense, 1 + earlier, { block, weights }),
    ]);
  }

  /** @param tokens calibration text, for the vocabulary to look at */
  async divergences(tokens: readonly Int32Array[]): Promise<Divergences> {
    const { checkpoint, pool } = this.context;
    await normaliseRows(this.#states, checkpoint);
    const head = await this.#headRows(frequentTokens(tokens));
    const reference = this.#slot(this.#dense), softCap = checkpoint.spec.logitsSoftCap;
    const logSums = (await Promise.all(
      ranges(head.length / this.#width, pool.threads).map((range) =>
        pool.run<"head">({ kind: "head", hidden: reference, head, width: this.#width, softCap, ...range })
      ),
    )).reduce((a, b) => a.map((x, i) => logAddExp(x, b[i])));
    const slots = this.#variants();
    const found = (await Promise.all(
      ranges(slots.length, pool.threads).map((range) =>
        pool.run<"divergence">({
          kind: "divergence",
          reference,
          logSums: Float32Array.from(logSums),
          hidden: slots.map((slot) => this.#slot(slot)),
          head,
          width: this.#width,
          softCap,
          ...range,
        })
      ),
    )).flat();
    return this.#byPart(found);
  }

  /**
   * Of an encoder, which predicts nothing: in place of divergences |y - y'|² / |y|² of its last states, of the first one of
   * each input (which most classifiers read) plus that of all.
   */
  async differences(): Promise<Divergences> {
    await normaliseRows(this.#states, this.context.checkpoint);
    const dense = this.#slot(this.#dense), size = this.#length * this.#width;
    const found = this.#variants().map((slot) => {
      const states = this.#slot(slot);
      let first = 0, firstAll = 0, rest = 0, restAll = 0;
      dense.forEach((y, i) => {
        const lost = (y - states[i]) ** 2, isFirst = i % size < this.#width;
        if (isFirst) [first, firstAll] = [first + lost, firstAll + y * y];
        rest += lost;
        restAll += y * y;
      });
      return first / firstAll + rest / restAll;
    });
    return this.#byPart(found);
  }

  /** Slots of all that is compared with the dense model. */
  #variants(): number[] {
    const kinds = this.#kinds;
    return [
      ...kinds.keys(),
      ...Array.from({ length: PART_NAMES.length * this.#block }, (_, i) => kinds.length + 1 + i),
    ];
  }

  /** @param found of each variant */
  #byPart(found: readonly number[]): Divergences {
    const kinds = this.#kinds, blocks = this.#block;
    const ofPart = (block: number, i: number) => found[kinds.length + PART_NAMES.length * block + i];
    return {
      kinds: Object.fromEntries(kinds.map((kind, i) => [kind, found[i]])),
      parts: Array.from({ length: blocks }, (_, block) => {
        const values = PART_NAMES.map((part, i) => [part, ofPart(block, i)]);
        return Object.fromEntries(values) as Record<PartName, number>;
      }),
    };
  }

  /** `[tokens, hidden]` */
  async #headRows(tokens: readonly number[]): Promise<Float32Array<SharedArrayBuffer>> {
    const { data } = await this.context.checkpoint.read("head"), width = this.#width;
    const rows = shared(tokens.length * width);
    tokens.forEach((token, i) => rows.set(data.subarray(token * width, (token + 1) * width), i * width));
    return rows;
  }
}

/** The tokens that occur most, at most {@linkcode MAX_VOCABULARY}. */
function frequentTokens(sequences: readonly Int32Array[]): number[] {
  const counts = new Map<number, number>();
  for (const ids of sequences) for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, MAX_VOCABULARY).map(([id]) => id);
}

/** 0..total in about equal parts, none of them empty. */
function ranges(total: number, parts: number): { from: number; to: number }[] {
  const count = Math.min(parts, total), at = (i: number) => Math.floor(total * i / count);
  return Array.from({ length: count }, (_, i) => ({ from: at(i), to: at(i + 1) }));
}
