/** Gathers a model's insight block by block, while something else goes over the blocks. */
import {
  type InputInsight,
  type Insight,
  type LayerInsight,
  newInsight,
  OUTLIER_MULTIPLES,
} from "../../models/formats/insight_file.ts";
import { LINEAR_INPUT, type LinearName } from "../../models/spec.ts";
import { INPUT_NAMES } from "../forward/block_graph.ts";
import type { BlockWeights } from "../forward/dense_forward.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import type { BlockStatistics } from "../statistics.ts";
import { inputInsight } from "./inputs.ts";

export class InsightCollector {
  readonly #blocks: { outliers: number[] | null }[] = [];
  readonly #inputs: InputInsight[] = [];
  readonly #layers: LayerInsight[] = [];

  constructor(readonly pool: LinalgPool) {}

  /** The next block's dense weights and inputs, before its layers; they may change once this is done. */
  async addBlock(weights: BlockWeights | null, statistics: BlockStatistics | null): Promise<void> {
    const index = this.#blocks.length;
    if (!statistics) {
      this.#blocks.push({ outliers: null });
      return;
    }
    for (const name of INPUT_NAMES) {
      this.#inputs.push(inputInsight(`block.${index}.${name}`, statistics[name].d));
    }
    const layers = weights && Object.keys(weights).filter((name) => name in LINEAR_INPUT).map((name) => ({
      W: weights[name].data,
      d: statistics[LINEAR_INPUT[name as LinearName]].d,
    }));
    const outliers = layers && await Promise.all(
      OUTLIER_MULTIPLES.map((m) => this.pool.run<"outliers">({ kind: "outliers", layers, m })),
    );
    this.#blocks.push({ outliers });
  }

  addLayer(layer: LayerInsight): void {
    this.#layers.push(layer);
  }

  /** @param calibration what the statistics come from */
  result(calibration: Insight["calibration"]): Insight {
    return newInsight({ calibration, blocks: this.#blocks, inputs: this.#inputs, layers: this.#layers });
  }
}
