/** The worker of linalg/pool.ts: what each kind of job does. Runs in a Web Worker only. */
/// <reference lib="deno.worker" />
import { packF32, packQ8 } from "../kernels/packers.ts";
import { collectGarbage } from "../engine/collect_garbage.ts";
import type { Shape2 } from "../kernels/layout.ts";
import { type LayerProbe, type ProbeJob, probeLayers } from "./allocation/probe_job.ts";
import { outlierRatios, type ScoredLayer } from "./allocation/owl.ts";
import { type BlockJob, runBlock } from "./forward/block_job.ts";
import type { BlockSums } from "./forward/block_sums.ts";
import { type DivergenceJob, runDivergence } from "./forward/divergence_job.ts";
import { type GraphJob, type GraphRun, runGraph } from "./graph/graph_job.ts";
import { type HeadJob, runHead } from "./forward/head_job.ts";
import { type PatchJob, runPatches } from "./forward/patch_job.ts";
import { compressInputGroup, type InputGroupJob } from "./input_group.ts";
import { type LayerInsightJob, type LayerMeasures, runLayerInsight } from "./insight/layer_insight.ts";
import type { LayerResult } from "./layer.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import {
  choicesOfHeads,
  keepInputs,
  type KeepInputsJob,
  type KeptInputs,
  type LossesJob,
  lossesOfChannels,
} from "./structured/layer_jobs.ts";
import type { ChannelLosses, HeadChoice } from "./structured/losses.ts";
import type { SequenceLoss } from "./recovery/block_pass.ts";
import type { BlockwiseJob } from "./recovery/blockwise_job.ts";
import { Buffers } from "./recovery/buffers.ts";
import type { DistillJob } from "./recovery/distill_job.ts";
import { sumGradients, type SumGradientsJob, type UpdateJob, updateValues } from "./recovery/update_job.ts";

/** Packs the embedding or the head. */
interface TableJob {
  readonly kind: "table";
  readonly values: Float32Array<SharedArrayBuffer>;
  readonly shape: Shape2;
  readonly format: "f32" | "q8";
}

/** OWL's outlier ratios of one block. */
interface OutliersJob {
  readonly kind: "outliers";
  readonly layers: readonly ScoredLayer[];
  readonly multiples: readonly number[];
}

interface Jobs {
  block: { job: BlockJob; result: BlockSums };
  head: { job: HeadJob; result: Float64Array<ArrayBuffer> };
  inputGroup: { job: InputGroupJob; result: LayerResult[] };
  layerInsight: { job: LayerInsightJob; result: LayerMeasures };
  table: { job: TableJob; result: Uint8Array };
  probe: { job: ProbeJob; result: LayerProbe[] };
  divergence: { job: DivergenceJob; result: number[] };
  patches: { job: PatchJob; result: Float32Array<ArrayBuffer> };
  outliers: { job: OutliersJob; result: number[] };
  channelLosses: { job: LossesJob & { readonly kind: "channelLosses" }; result: ChannelLosses };
  headChoices: { job: LossesJob & { readonly kind: "headChoices" }; result: HeadChoice[] };
  graph: { job: GraphJob; result: GraphRun };
  keepInputs: { job: KeepInputsJob; result: KeptInputs };
  distill: { job: DistillJob; result: SequenceLoss };
  blockwise: { job: BlockwiseJob; result: SequenceLoss };
  sumGradients: { job: SumGradientsJob; result: number };
  updateValues: { job: UpdateJob; result: void };
}
export type JobKind = keyof Jobs;
export type JobOf<K extends JobKind> = Jobs[K]["job"];
export type ResultOf<K extends JobKind> = Jobs[K]["result"];

export interface JobRequest {
  /** Whether much is to be given back behind it: an idle thread would collect nothing. */
  readonly large: boolean;
  /** For matrix products. */
  readonly threads: number;
  readonly job: JobOf<JobKind>;
}
export type JobResponse = { readonly result: ResultOf<JobKind> } | { readonly error: unknown };

/** By their threads: a session has as many as it was made with. */
const runtimes = new Map<number, Promise<LinalgRuntime>>();
/** Of training, from one step to the next. */
const buffers = new Buffers();

async function run({ job, threads }: JobRequest): Promise<ResultOf<JobKind>> {
  if (!runtimes.has(threads)) runtimes.set(threads, LinalgRuntime.create(threads));
  const linalg = await runtimes.get(threads)!;
  switch (job.kind) {
    case "block":
      return await runBlock(job, linalg);
    case "head":
      return await runHead(job, linalg);
    case "inputGroup":
      return await compressInputGroup(job, linalg);
    case "layerInsight":
      return await runLayerInsight(job, linalg);
    case "table":
      return (job.format === "f32" ? packF32 : packQ8)(job.values, job.shape);
    case "probe":
      return await probeLayers(job, linalg);
    case "divergence":
      return await runDivergence(job, linalg);
    case "patches":
      return await runPatches(job, linalg);
    case "outliers":
      return outlierRatios(job.layers, job.multiples);
    case "channelLosses":
      return await lossesOfChannels(job, linalg);
    case "headChoices":
      return await choicesOfHeads(job, linalg);
    case "graph":
      return await runGraph(job, linalg);
    case "keepInputs":
      return await keepInputs(job, linalg);
    case "distill": // few compressions train: their modules load then
      return await (await import("./recovery/distill_job.ts")).runDistill(job, linalg, buffers);
    case "blockwise":
      return await (await import("./recovery/blockwise_job.ts")).runBlockwise(job, linalg, buffers);
    case "sumGradients":
      return sumGradients(job);
    case "updateValues":
      return updateValues(job);
  }
}

self.onmessage = async ({ data }: MessageEvent<JobRequest>) => {
  let response: JobResponse;
  try {
    response = { result: await run(data) };
  } catch (error) {
    response = { error };
  }
  self.postMessage(response);
  if (data.large) collectGarbage();
};
