/**
 * From an .onnx file and a recipe to an artifact: the layers of the graph (its MatMuls and Gemms by constant weights) go
 * through the same methods as those of a model of blocks; what is between them stays a graph.
 */
import { basename } from "node:path";
import { OnnxRuntime } from "../../engine/graph/ort.ts";
import { typedGraph } from "../../engine/graph/value_types.ts";
import { OatmillError } from "../../errors.ts";
import type { TokenizerFiles } from "../../models/checkpoint.ts";
import { ArtifactWriter } from "../../models/formats/artifact_writer.ts";
import type { LayerReport } from "../../models/formats/artifact_header.ts";
import {
  CONFIG_FILE,
  GRAPH_FILE,
  GRAPH_KIND,
  type GraphHeader,
  PROCESSOR_FILE,
} from "../../models/formats/graph_artifact.ts";
import { findLayers, type LayeredGraph } from "../../models/onnx/graph_layers.ts";
import { answersOf, labelsOf } from "../../models/onnx/graph_outputs.ts";
import { type GraphSource, openGraphSource } from "../../models/onnx/graph_source.ts";
import { encodeModel } from "../../models/onnx/onnx_proto.ts";
import { inputGroups } from "../../models/onnx/segments.ts";
import type { Recipe } from "../../models/recipe.ts";
import { checkTokenizerJson } from "../../models/tokenizer_check.ts";
import type { CompressionRun } from "../compression_context.ts";
import { inputGroupBytes, type InputGroupJob } from "../input_group.ts";
import type { LayerResult } from "../layer.ts";
import type { LayerPlan } from "../layer_plan.ts";
import { LinalgPool } from "../linalg/pool.ts";
import { inputScale } from "../quantize.ts";
import { type InputStatistics, toShared } from "../statistics.ts";
import { blockChunksOf } from "../stored_parts.ts";
import { shownRecipe } from "../finish_artifact.ts";
import { VERSION } from "../version.ts";
import { measureAgreement } from "./agreement.ts";
import { checkGraphRecipe, layerPlans } from "./graph_plans.ts";
import { calibrate, type Calibrated } from "./graph_statistics.ts";

/** What the steps share. */
export interface GraphContext extends CompressionRun {
  readonly pool: LinalgPool;
  readonly source: GraphSource;
  readonly layered: LayeredGraph;
  /** Of each layer: those of one group share statistics and scale. */
  readonly groups: readonly number[];
  readonly blockChunks: number;
}

/**
 * Makes the artifact of a run whose source is an .onnx file.
 * @throws {OatmillError} as `compress()`
 */
export async function compressGraph(run: CompressionRun): Promise<GraphHeader> {
  const { options, progress, work } = run, recipe = checkGraphRecipe(run.recipe);
  const source = await progress.time("read", () => openGraphSource(options.source));
  if (source.reads !== "tensors") labelsOf(source.config, answersOf(source.model.graph)); // else nothing opens the artifact
  const layered = findLayers(source.model, { smallest: recipe.smallest_layer });
  checkLayers(layered, recipe);
  if (source.tokenizerFiles) checkTokenizerJson(source.tokenizerFiles.tokenizer);
  using pool = new LinalgPool(work.threads);
  const { layers, rest } = layered;
  const blockChunks = blockChunksOf(layers.map(({ shape }) => shape[1]));
  const groups = inputGroups(rest.graph);
  const context = { ...run, recipe, pool, source, layered, groups, blockChunks };
  await Deno.remove(work.artifact, { recursive: true }).catch(() => {}); // of a run that ended before its last step
  const writer = await ArtifactWriter.create(work.artifact, {
    maxTensors: 4 * layers.length + 1,
    temporary: work.partial,
  });
  try {
    const { header, calibrated } = await writeGraph(context, writer);
    return await measureAgreement(header, calibrated, context);
  } finally {
    writer.close();
  }
}

function checkLayers({ layers }: LayeredGraph, { smallest_layer }: Recipe): void {
  if (layers.length > 0) return;
  throw new OatmillError(
    "unsupported_architecture",
    "Cannot compress the graph: it has no MatMul or Gemm by a constant float32 matrix of at least " +
      `${smallest_layer} weights (recipe field "smallest_layer")`,
  );
}

async function writeGraph(
  context: GraphContext,
  writer: ArtifactWriter,
): Promise<{ readonly header: GraphHeader; readonly calibrated: Calibrated }> {
  const { progress, layered } = context;
  const graph = await progress.time(
    "read",
    async () => encodeModel(await typedGraph(layered, await OnnxRuntime.load())),
  );
  const calibrated = await calibrate(context);
  const reports = await compressLayers(calibrated.statistics, context, writer);
  const header = await progress.time("write", async () => {
    await writer.addFile(GRAPH_FILE, graph);
    return await finish(reports, context, writer);
  });
  return { header, calibrated };
}

/** @param statistics by group; empty without calibration */
async function compressLayers(
  statistics: readonly InputStatistics[],
  context: GraphContext,
  writer: ArtifactWriter,
): Promise<LayerReport[]> {
  const { progress, pool, layered: { layers }, groups, recipe, work: { journal } } = context;
  const plans = await layerPlans(statistics, context);
  const results = new Map<number, LayerResult>();
  const left = [...Map.groupBy(layers.keys(), (layer) => groups[layer])];
  /** One group after the other: only those that workers are at have their weights read. */
  const lane = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [group, members] = next;
      const found = await journal.keep(`group.${group}`, () => {
        const job = groupJob(members, { plans, statistics: statistics[group], context });
        return pool.run<"inputGroup">(job, inputGroupBytes(job));
      });
      found.forEach((result, i) => {
        results.set(members[i], result);
        progress.addLayerError(result.report.error);
      });
      progress.report("compress", results.size, layers.length, layers[members[0]].name);
      progress.checkCancelled();
    }
  };
  await progress.time("compress", () => Promise.all(Array.from({ length: pool.threads }, lane)));
  await progress.time("write", () => writeLayers(results, statistics, { writer, recipe }));
  return layers.map((_, i) => results.get(i)!.report);
}

/** @param members layers that read one value */
function groupJob(
  members: readonly number[],
  { plans, statistics, context: { recipe, layered: { layers }, blockChunks } }: {
    /** By layer. */
    readonly plans: readonly LayerPlan[];
    /** Of the value; absent without calibration. */
    readonly statistics: InputStatistics | undefined;
    readonly context: GraphContext;
  },
): InputGroupJob {
  const { d = null, H = null } = statistics ?? {};
  const read = (i: number) => {
    const { name, shape, read } = layers[i];
    return { name, shape, W: toShared(read()), plan: plans[i] };
  };
  return {
    kind: "inputGroup",
    layers: members.map(read),
    d,
    H,
    recipe,
    blockChunks,
    replace: false,
  };
}

async function writeLayers(
  results: ReadonlyMap<number, LayerResult>,
  statistics: readonly InputStatistics[],
  { writer, recipe }: { readonly writer: ArtifactWriter; readonly recipe: Recipe },
): Promise<void> {
  for (const [layer, { tensors }] of [...results].sort(([a], [b]) => a - b)) {
    for (const t of tensors) await writer.add(`layer.${layer}.${t.part}`, t.format, t.shape, t.bytes);
  }
  if (recipe.values === "f32") return;
  for (const [group, { d }] of statistics.entries()) {
    const scale = inputScale(d, recipe);
    await writer.add(
      `group.${group}.scale`,
      { kind: "vector" },
      [scale.length],
      new Uint8Array(scale.buffer),
    );
  }
}

async function finish(
  layers: readonly LayerReport[],
  { options, recipe, source, blockChunks }: GraphContext,
  writer: ArtifactWriter,
): Promise<GraphHeader> {
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  if (source.config) await writer.addFile(CONFIG_FILE, json(source.config));
  if (source.imageProcessor) await writer.addFile(PROCESSOR_FILE, json(source.imageProcessor));
  const { initializer } = source.model.graph;
  const tensorBytes = initializer.reduce((sum, { rawData }) => sum + rawData.length, 0);
  const rest: Omit<GraphHeader, "format" | "tensors" | "bytes" | "files"> = {
    kind: GRAPH_KIND,
    oatmill: VERSION,
    created: new Date().toISOString(),
    name: options.name ?? basename(options.out),
    recipe: shownRecipe(recipe, options),
    source: { file: basename(source.path), format: "onnx", tensorBytes },
    blockChunks,
    layers,
    perplexity: null,
    agreement: null,
    pooling: source.pooling,
    denseBytes: 2 * layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0),
  };
  const tokenizer: TokenizerFiles | null = source.tokenizerFiles;
  return await writer.finish(rest, tokenizer);
}
