/**
 * Export as an ONNX graph of the whole decoder: `input_ids` [batch, length] to `logits` [batch, length, vocab]. Nothing is
 * cached: every run computes the whole sequences. Shorter ones are padded at their end, which no token before sees.
 */
import { join } from "node:path";
import { addBlock, blockWeights, capped, normalise } from "../compress/forward/block_graph.ts";
import { OnnxGraph } from "../compress/linalg/onnx_graph.ts";
import type { Checkpoint, WeightRole } from "../models/checkpoint.ts";
import { blockSpec, hasFinalNorm } from "../models/spec.ts";
import type { DenseModel } from "./dense_model.ts";
import { attentionGraph, type SequenceShape, sequenceShape } from "./onnx_attention.ts";
import { type DataFile, OnnxData } from "./onnx_data.ts";
import { writeConfigs } from "./write_configs.ts";
import { writeFolder } from "./write_folder.ts";

export interface OnnxOptions {
  readonly onTensor?: (done: number, total: number) => void;
}

const MODEL_FILE = "model.onnx", DATA_FILE = "model.onnx.data";

/**
 * @param out the folder to make: the graph, its weights in f32, config.json and the tokenizer
 * @throws {OatmillError} conflict (`out` exists), storage_failed
 */
export async function exportOnnx(
  model: DenseModel,
  out: string,
  { onTensor }: OnnxOptions,
): Promise<{ readonly files: readonly string[]; readonly bytes: number }> {
  return await writeFolder(out, async (folder) => {
    const data = new OnnxData(DATA_FILE), graph = decoderGraph(model.weights, data);
    await Deno.writeFile(join(folder, MODEL_FILE), graph.encode());
    const bytes = await data.write(join(folder, DATA_FILE), model.weights, onTensor);
    await writeConfigs(folder, model, "f32");
    return { files: [MODEL_FILE, DATA_FILE], bytes };
  });
}

function decoderGraph(weightsOf: Checkpoint, data: DataFile): OnnxGraph {
  const g = new OnnxGraph(), { spec } = weightsOf, { vocabSize, hiddenSize } = spec;
  const ids = g.input("input_ids", ["batch", "length"], "i64"), shape = sequenceShape(g, ids);
  const table = data.weight(g, "embedding", [vocabSize, hiddenSize]);
  const head = spec.tiedEmbeddings ? table : data.weight(g, "head", [vocabSize, hiddenSize]);
  let x = embedded(g, { table, ids, shape, spec, data });
  for (let block = 0; block < spec.blocks; block++) {
    const own = blockSpec(spec, block), prefix = `block.${block}.`;
    const role = (name: string) => prefix + name as WeightRole;
    const weights = blockWeights(own, (name) => weightsOf.has(role(name)));
    for (const [name, size] of Object.entries(weights)) data.weight(g, role(name), size);
    const attention = attentionGraph(g, { spec: own, shape, prefix, data });
    x = addBlock(g, x, {
      spec: own,
      weights,
      sequences: 0,
      length: 0,
      collect: "nothing",
      prefix,
      attention,
    });
  }
  if (hasFinalNorm(spec)) x = normalise(g, x, "finalNorm", { spec, weights: finalNorm(g, spec, data) });
  const logits = capped(g, g.node("Gemm", [x, head], { transB: { int: 1 } }), spec.logitsSoftCap);
  g.output("logits", shape.reshape(logits, shape.batch, shape.length, vocabSize));
  return g;
}

function finalNorm(
  g: OnnxGraph,
  { norm, hiddenSize }: Checkpoint["spec"],
  data: DataFile,
): Record<string, readonly number[]> {
  const names: WeightRole[] = norm.kind === "layernorm" ? ["finalNorm", "finalNorm.bias"] : ["finalNorm"];
  return Object.fromEntries(names.map((name) => [data.weight(g, name, [hiddenSize]), [hiddenSize]]));
}

/** Hidden states before the first block, [tokens, hidden]. */
function embedded(
  g: OnnxGraph,
  { table, ids, shape, spec: { hiddenSize, contextLength, embeddingScale, learnedPositions }, data }: {
    readonly table: string;
    readonly ids: string;
    readonly shape: SequenceShape;
    readonly spec: Checkpoint["spec"];
    readonly data: DataFile;
  },
): string {
  let x = g.node("Gather", [table, ids]);
  if (embeddingScale) x = g.node("Mul", [x, g.scalar(embeddingScale)]);
  if (learnedPositions) {
    const positions = data.weight(g, "positions", [contextLength, hiddenSize]);
    x = g.node("Add", [x, g.node("Gather", [positions, shape.positions])]);
  }
  return shape.reshape(x, -1, hiddenSize);
}
