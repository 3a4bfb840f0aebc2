/**
 * Structured pruning (`method: "structured"`): whole attention heads and FFN channels leave a block, whose matrices really
 * shrink, so that dense kernels serve what is left. A block's loss in `o` and `down` says what goes (losses.ts); what is
 * left is corrected by least squares (correct.ts).
 */
import type { Recipe } from "../../models/recipe.ts";
import type { LayerReport } from "../../models/formats/artifact_header.ts";
import {
  type BlockSizes,
  type LinearKind,
  type LinearName,
  linearShapes,
  type ModelSpec,
} from "../../models/spec.ts";
import type { BlockWeights } from "../forward/dense_forward.ts";
import type { SharedTensor } from "../forward/block_job.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import { type BlockStatistics, type InputStatistics, shared } from "../statistics.ts";
import { chooseKept, type Kept } from "./choose.ts";
import { prunedLayerBytes } from "./layer_jobs.ts";
import { blockParameters, withSizes } from "./sizes.ts";
import { cappedRates, largestRate } from "./targets.ts";

/** A block as it is stored: smaller, with the statistics of the inputs that are left. */
export interface PrunedBlock {
  readonly weights: BlockWeights;
  readonly statistics: BlockStatistics;
}

/** What the blocks behind one need to know of it. */
export interface PrunedState {
  readonly sizes: BlockSizes;
  readonly errors: Partial<Record<LinearName, number>>;
  readonly due: number;
}

/** Prunes a model's blocks, in order: what one could not remove exactly, the next ones do. */
export class BlockPruning {
  readonly #spec: ModelSpec;
  readonly #dense: Recipe["dense"];
  readonly #pool: LinalgPool;
  readonly #rates: readonly number[];
  readonly #sizes: BlockSizes[] = [];
  /** By block: the share of their output that `o` and `down` lost. */
  readonly #errors: Partial<Record<LinearName, number>>[] = [];
  /** By block: weights that were still to be removed behind it. */
  readonly #dues: number[] = [];
  /** Weights that are still to be removed from the blocks so far. */
  #due = 0;
  /** What the last block keeps: the next one's share depends on it. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param options.rates of each block: share of its linear layers' weights */
  constructor(
    spec: ModelSpec,
    { dense, rates, pool }: {
      readonly dense: Recipe["dense"];
      readonly rates: readonly number[];
      readonly pool: LinalgPool;
    },
  ) {
    this.#spec = spec;
    this.#dense = dense;
    this.#pool = pool;
    this.#rates = cappedRates(rates, largestRate(spec, { dense }));
  }

  /** The model's spec with the sizes of the pruned blocks. */
  get spec(): ModelSpec {
    return { ...this.#spec, blockSizes: this.#sizes };
  }

  /**
   * The next block, also while the one before is under way. `o` and `down` of `weights` then have zeros for removed inputs
   * and the corrected rest: they compute what the smaller block does.
   */
  async prune(weights: BlockWeights, statistics: BlockStatistics): Promise<PrunedBlock> {
    const choice = this.#last.then(() => this.#chooseNext(weights, statistics));
    this.#last = choice;
    const { block, kept } = await choice, { headDim } = this.#spec.attention;
    const rows = {
      heads: wide(kept.heads, headDim),
      kvHeads: wide(kept.kvHeads, headDim),
      channels: kept.channels,
    };
    const [o, down] = await Promise.all([
      this.#keepInputs(weights.o, statistics.o, rows.heads),
      this.#keepInputs(weights.down, statistics.down, rows.channels),
    ]);
    this.#errors[block] = { o: o.error, down: down.error };
    return {
      weights: shrunken(weights, rows, { o: o.tensor, down: down.tensor }),
      statistics: {
        ...statistics,
        o: chosenInputs(statistics.o, rows.heads),
        down: chosenInputs(statistics.down, rows.channels),
      },
    };
  }

  /** Of a block that is pruned. */
  state(block: number): PrunedState {
    return { sizes: this.#sizes[block], errors: this.#errors[block], due: this.#dues[block] };
  }

  /** The next block, as an earlier run pruned it. */
  restore({ sizes, errors, due }: PrunedState): void {
    this.#errors[this.#sizes.length] = errors;
    this.#sizes.push(sizes);
    this.#dues.push(due);
    this.#due = due;
  }

  /** A stored layer's report, with what pruning took from it. */
  report(block: number, name: LinearName, report: LayerReport): LayerReport {
    const [dOut, dIn] = linearShapes(this.#spec)[name]!, [rows, cols] = report.shape;
    return {
      ...report,
      rate: 1 - rows * cols / (dOut * dIn),
      error: report.error + (this.#errors[block][name] ?? 0),
    };
  }

  async #chooseNext(weights: BlockWeights, statistics: BlockStatistics) {
    const block = this.#sizes.length, all = blockParameters(this.#spec);
    this.#due += this.#rates[block] * all;
    const kept = await this.#choose(weights, statistics);
    this.#due -= all - blockParameters(withSizes(this.#spec, kept.sizes));
    this.#sizes.push(kept.sizes);
    this.#dues.push(this.#due);
    return { block, kept };
  }

  async #choose(weights: BlockWeights, statistics: BlockStatistics): Promise<Kept> {
    const spec = this.#spec, goal = { target: this.#due, dense: this.#dense };
    const o = layerOf(weights.o, statistics.o), down = layerOf(weights.down, statistics.down);
    const [channels, heads] = await Promise.all([
      this.#pool.run<"channelLosses">({ kind: "channelLosses", ...down, spec, goal }, prunedLayerBytes(down)),
      this.#pool.run<"headChoices">({ kind: "headChoices", ...o, spec, goal }, prunedLayerBytes(o)),
    ]);
    return chooseKept(spec, { heads, channels }, goal);
  }

  /** Also puts what is left, among zeros, in the place of `weight`. */
  async #keepInputs(weight: SharedTensor, statistics: InputStatistics, kept: readonly number[]) {
    const layer = layerOf(weight, statistics), [dOut, dIn] = layer.shape;
    if (kept.length === dIn) return { tensor: weight, error: 0 };
    const job = { kind: "keepInputs", ...layer, kept } as const;
    const { W, error } = await this.#pool.run<"keepInputs">(job, prunedLayerBytes(layer));
    const data = shared(W.length);
    data.set(W);
    weight.data.fill(0);
    for (let i = 0, at = 0; i < dOut; i++) {
      for (const j of kept) weight.data[i * dIn + j] = W[at++];
    }
    return { tensor: { data, shape: [dOut, kept.length] }, error };
  }
}

const layerOf = ({ data, shape }: SharedTensor, { d, H }: InputStatistics) => ({
  W: data,
  shape: [shape[0], shape[1]] as const,
  d,
  H,
});

/** Indices of all rows of these heads. */
const wide = (heads: readonly number[], headDim: number): number[] =>
  heads.flatMap((head) => Array.from({ length: headDim }, (_, i) => head * headDim + i));

type KeptRows = Readonly<Record<"heads" | "kvHeads" | "channels", readonly number[]>>;
/** What each layer's outputs are; those of `o` and `down` all stay. */
const OUTPUTS: Readonly<Partial<Record<LinearKind, keyof KeptRows>>> = {
  q: "heads",
  k: "kvHeads",
  v: "kvHeads",
  gate: "channels",
  up: "channels",
};

/** The rows that stay, of weights and biases. */
function shrunken(weights: BlockWeights, rows: KeptRows, replaced: BlockWeights): BlockWeights {
  return Object.fromEntries(
    Object.entries(weights).map(([name, weight]) => {
      const outputs = OUTPUTS[name.replace(/\.bias$/, "") as LinearKind];
      return [name, replaced[name] ?? (outputs ? chosenRows(weight, rows[outputs]) : weight)];
    }),
  );
}

function chosenRows({ data, shape }: SharedTensor, rows: readonly number[]): SharedTensor {
  const cols = shape[1] ?? 1, out = shared(rows.length * cols);
  rows.forEach((row, i) => out.set(data.subarray(row * cols, (row + 1) * cols), i * cols));
  return { data: out, shape: [rows.length, ...shape.slice(1)] };
}

function chosenInputs({ d, H }: InputStatistics, inputs: readonly number[]): InputStatistics {
  const n = inputs.length, scales = shared(n), moments = H && shared(n * n);
  inputs.forEach((i, a) => {
    scales[a] = d[i];
    if (H && moments) inputs.forEach((j, b) => moments[a * n + b] = H[i * d.length + j]);
  });
  return { d: scales, H: moments };
}
