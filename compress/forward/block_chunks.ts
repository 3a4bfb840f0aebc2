/** Runs a block's graph over some sequences at a time. */
import type { InputTensor, LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import { expertOf, type InputName, type ModelSpec } from "../../models/spec.ts";
import { openValues } from "../work_space.ts";
import { blockGraph, type Collect, inputWidths } from "./block_graph.ts";
import { positionInputs, weightInputs } from "./block_inputs.ts";
import type { BlockJob } from "./block_job.ts";
import { type BlockSums, SumCollector } from "./block_sums.ts";
import { EXPERT_TOKENS } from "./experts_graph.ts";
import { MomentCodes } from "./moment_codes.ts";
import { momentPanels } from "./moments.ts";

/** Runs a job's sequences through the block, in any portions, and sums what they show. */
export class ChunkRunner {
  readonly #positions: Record<string, Tensor>;
  #constants: Record<string, InputTensor>;
  readonly #sums: SumCollector;
  #codes: MomentCodes | null = null;

  constructor(readonly job: BlockJob, readonly linalg: LinalgRuntime) {
    this.#positions = positionInputs(job.spec, job.length);
    this.#constants = weightInputs(job.weights, null);
    this.#sums = new SumCollector(job);
  }

  /** Goes on in int8, scaled by what the inputs' columns have been like so far. */
  useCodes(): void {
    const { spec, length, weights } = this.job, sizes = this.#sums.columnSizes();
    this.#constants = {}; // given back before the next ones are made
    this.#constants = weightInputs(weights, sizes);
    this.#codes = new MomentCodes(sizes, { spec, length });
  }

  /** Sequences from..to-1. */
  async run(from: number, to: number, collect: Collect): Promise<void> {
    const { spec, length, write, x } = this.job;
    const outputs = await this.#outputs(from, to, collect);
    if (write) {
      using values = openValues(x);
      values.write(from * length * spec.hiddenSize, outputs.y.data);
    }
    if (collect !== "nothing") this.#sums.add(outputs, { collect, sequences: to - from, codes: this.#codes });
  }

  sums(): BlockSums {
    return this.#sums.result();
  }

  async #outputs(from: number, to: number, collect: Collect): Promise<Record<string, Tensor>> {
    const { job } = this, { spec, length } = job, sequences = to - from;
    const products = this.#codes ? "int8" : "f32";
    const input = tensor(sequences * length, spec.hiddenSize);
    using x = openValues(job.x);
    x.read(from * length * spec.hiddenSize, input.data);
    const outputs = graphOutputs(spec, sequences, sequences * length, collect);
    const weights = Object.fromEntries(Object.entries(job.weights).map(([name, w]) => [name, w.shape]));
    await this.linalg.run(
      // Of what blocks may have of their own, the scale alone is no input.
      `block ${sequences} x ${length} ${collect} ${products} ${spec.attention.scale}`,
      () => blockGraph({ spec, weights, sequences, length, collect, products }),
      {
        x: input,
        ...this.#positions,
        ...this.#constants,
        ...collect === "moments" && this.#codes ? this.#codes.inputs() : {},
      },
      outputs,
    );
    return outputs;
  }
}

function tensor(...shape: number[]): Tensor {
  return { data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape };
}

function graphOutputs(
  spec: ModelSpec,
  sequences: number,
  tokens: number,
  collect: Collect,
): Record<string, Tensor> {
  const outputs: Record<string, Tensor> = { y: tensor(tokens, spec.hiddenSize) };
  if (collect === "nothing") return outputs;
  const { experts } = spec.mlp;
  if (experts) outputs[EXPERT_TOKENS] = tensor(experts.count);
  for (const [name, n] of Object.entries(inputWidths(spec)) as [InputName, number][]) {
    if (expertOf(name) === null) outputs[`${name}.first`] = tensor(sequences, n);
    if (collect === "squares") outputs[`${name}.squares`] = tensor(n);
    else {
      for (const { from, to, output } of momentPanels(name, n)) {
        outputs[output] = tensor(to - from, n - from);
      }
    }
  }
  return outputs;
}
