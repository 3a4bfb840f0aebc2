/** Runs a graph stage by stage: ONNX Runtime for the nodes, the kernels for the layers. The leading thread of a graph only. */
import { OatmillError } from "../../errors.ts";
import type { OnnxModel } from "../../models/onnx/open_onnx.ts";
import { type Segment, segmentModel, type Stage, stagesOf } from "../../models/onnx/segments.ts";
import type { GraphTensor, GraphTensors } from "../../models/onnx/graph_tensor.ts";
import type { LayerTeam } from "./layer_team.ts";
import { type InferenceSession, OnnxRuntime, type Tensor } from "./ort.ts";

/** Operators that are worth several threads; a session has threads of its own, so the many small ones take none. */
const HEAVY: ReadonlySet<string> = new Set([
  "Conv",
  "MatMul",
  "Gemm",
  "Einsum",
  "Attention",
  "MultiHeadAttention",
]);

interface Bound extends Stage {
  readonly session: InferenceSession | null;
  /** Number of the stage's first step among all. */
  readonly firstStep: number;
  /** Values that nothing reads behind this stage. */
  readonly done: readonly string[];
}

export class GraphRunner {
  private constructor(
    readonly runtime: OnnxRuntime,
    readonly stages: readonly Bound[],
    readonly outputs: readonly string[],
    readonly team: LayerTeam,
  ) {}

  /** @throws {OatmillError} unsupported_format, invalid_artifact */
  static async load(model: OnnxModel, team: LayerTeam, threads: number): Promise<GraphRunner> {
    const runtime = await OnnxRuntime.load(), stages = stagesOf(model);
    const outputs = model.graph.output.map(({ name }) => name);
    const bound: Bound[] = [];
    let firstStep = 0;
    for (const [i, stage] of stages.entries()) {
      const { segment, steps } = stage;
      const own = segment?.nodes.some(({ opType }) => HEAVY.has(opType)) ? threads : 1;
      const session = segment && await runtime.session(segmentModel(model, segment), own);
      const later = new Set([...outputs, ...stages.slice(i + 1).flatMap(reads)]);
      bound.push({ ...stage, session, firstStep, done: reads(stage).filter((name) => !later.has(name)) });
      firstStep += steps.length;
    }
    return new GraphRunner(runtime, bound, outputs, team);
  }

  /** @throws {OatmillError} invalid_request */
  async run(feeds: GraphTensors): Promise<GraphTensors> {
    const values = new Map<string, Tensor>();
    for (const [name, tensor] of Object.entries(feeds)) values.set(name, this.runtime.tensor(tensor));
    for (const stage of this.stages) {
      if (stage.segment && stage.session) await this.#segment(stage.segment, stage.session, values);
      stage.steps.forEach(({ input, layers }, i) => {
        const x = value(values, input);
        const results = this.#multiply(stage.firstStep + i, x, input);
        layers.forEach(({ output }, j) => values.set(output, results[j]));
      });
      for (const name of stage.done) values.delete(name);
    }
    return Object.fromEntries(this.outputs.map((name) => [name, plain(value(values, name))]));
  }

  async #segment(segment: Segment, session: InferenceSession, values: Map<string, Tensor>): Promise<void> {
    const feeds = Object.fromEntries(segment.inputs.map((name) => [name, value(values, name)]));
    const results = await this.runtime.run(session, feeds);
    for (const name of segment.outputs) values.set(name, results[name]);
  }

  #multiply(step: number, x: Tensor, name: string): Tensor[] {
    const { cols, outputs } = this.team.steps[step], { dims, data } = x;
    if (!(data instanceof Float32Array) || dims.at(-1) !== cols) {
      throw new OatmillError(
        "invalid_request",
        `Value "${name}" is ${x.type} [${dims}] on this input, its layers need float32 [..., ${cols}]`,
      );
    }
    const products = this.team.multiply(step, data, data.length / cols);
    return products.map((y, i) =>
      this.runtime.tensor({ type: "float32", dims: [...dims.slice(0, -1), outputs[i].cols], data: y })
    );
  }

  async close(): Promise<void> {
    this.team.close();
    for (const { session } of this.stages) await session?.release();
  }
}

const reads = ({ segment, steps }: Stage): string[] => [
  ...segment?.inputs ?? [],
  ...segment?.outputs ?? [],
  ...steps.map(({ input }) => input),
];

function value(values: ReadonlyMap<string, Tensor>, name: string): Tensor {
  const found = values.get(name);
  if (found) return found;
  throw new OatmillError("invalid_request", `The graph's input "${name}" is missing`);
}

function plain({ type, dims, data }: Tensor): GraphTensor {
  if (Array.isArray(data)) {
    throw new OatmillError("unsupported_format", "The graph answers strings, which are not served");
  }
  // Cast: ONNX Runtime's own arrays are never shared.
  return { type, dims: [...dims], data: data as ArrayBufferView<ArrayBuffer> };
}
