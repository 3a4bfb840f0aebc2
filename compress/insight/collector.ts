/** Gathers a model's insight block by block, while something else goes over the blocks. */
import {
  type InputInsight,
  type Insight,
  type LayerInsight,
  newInsight,
  OUTLIER_MULTIPLES,
} from "../../models/formats/insight_file.ts";
import { type InputName, inputOf } from "../../models/spec.ts";
import type { ScoredLayer } from "../allocation/owl.ts";
import type { BlockWeights } from "../forward/dense_forward.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import { isLinear } from "../linear_layers.ts";
import type { BlockStatistics } from "../statistics.ts";
import { inputInsight } from "./inputs.ts";
import type { LayerMeasures } from "./layer_insight.ts";

/** What is known of one block. */
export interface BlockInsight {
  readonly outliers: number[] | null;
  readonly inputs: readonly InputInsight[];
  readonly layers: readonly LayerInsight[];
}

export class InsightCollector {
  readonly #blocks: { outliers: number[] | null }[] = [];
  readonly #inputs: InputInsight[] = [];
  readonly #layers: LayerInsight[] = [];
  /** Of the layers, by name. */
  readonly #outliers = new Map<string, number[]>();

  constructor(readonly pool: Pick<LinalgPool, "run">) {}

  /** The next block's dense weights and inputs, before its layers; they may change once this is done. */
  async addBlock(weights: BlockWeights | null, statistics: BlockStatistics | null): Promise<void> {
    const index = this.#blocks.length;
    this.#blocks.push({ outliers: null });
    if (!statistics) return;
    const rms = (input: InputName) => statistics[input].rms ?? statistics[input].d;
    for (const name of Object.keys(statistics) as InputName[]) {
      this.#inputs.push(inputInsight(`block.${index}.${name}`, rms(name)));
    }
    if (!weights) return;
    const scored = Object.keys(weights).filter(isLinear)
      .map((name) => ({ name, W: weights[name].data, d: rms(inputOf(name)) }));
    await Promise.all(scored.map(async (layer) => {
      this.#outliers.set(`block.${index}.${layer.name}`, await this.#ratios([layer]));
    }));
    this.#blocks[index].outliers = await this.#ratios(scored);
  }

  #ratios(layers: readonly ScoredLayer[]): Promise<number[]> {
    const plain = layers.map(({ W, d }) => ({ W, d }));
    return this.pool.run<"outliers">({ kind: "outliers", layers: plain, multiples: OUTLIER_MULTIPLES });
  }

  /** A layer of the last block. */
  addLayer(layer: LayerMeasures): void {
    this.#layers.push({ ...layer, outliers: this.#outliers.get(layer.name) ?? null });
  }

  /** A block whose layers are all there. */
  block(index: number): BlockInsight {
    const own = <T extends { readonly name: string }>(all: readonly T[]) =>
      all.filter(({ name }) => name.startsWith(`block.${index}.`));
    return { outliers: this.#blocks[index].outliers, inputs: own(this.#inputs), layers: own(this.#layers) };
  }

  /** The next block, as an earlier run had it. */
  restore({ outliers, inputs, layers }: BlockInsight): void {
    this.#blocks.push({ outliers });
    this.#inputs.push(...inputs);
    this.#layers.push(...layers);
  }

  /** @param calibration what the statistics come from */
  result(calibration: Insight["calibration"]): Insight {
    return newInsight({ calibration, blocks: this.#blocks, inputs: this.#inputs, layers: this.#layers });
  }
}
