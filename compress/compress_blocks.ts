/** The blocks in order: statistics, then all layers of a block in parallel, then their tensors into the artifact. */
import type { LayerReport } from "../models/formats/artifact_header.ts";
import { type InputName, inputNames, type LinearName, linearNames, type ModelSpec } from "../models/spec.ts";
import { collectBehind, pass, passWithStatistics } from "./block_pass.ts";
import type { CompressionContext, Residuals } from "./compression_context.ts";
import { type BlockWeights, readBlock } from "./forward/dense_forward.ts";
import { inputGroupBytes, type InputGroupJob } from "./input_group.ts";
import { InsightCollector } from "./insight/collector.ts";
import type { LayerResult } from "./layer.ts";
import { blockBytes, type InputGroup, inputGroups, isLinear } from "./linear_layers.ts";
import type { BlockPlan, Plans } from "./plans.ts";
import { resumedAt } from "./progress.ts";
import { earlierDenseQuality } from "./quality.ts";
import { inputScale } from "./quantize.ts";
import { needsMoments } from "./recipe_needs.ts";
import { BLOCK_STREAM, keepBlock } from "./resume/block_units.ts";
import { type PendingStream, SavedStreams, type StreamParts, streamParts } from "./resume/streams.ts";
import type { BlockStatistics } from "./statistics.ts";
import type { BlockPlace } from "./types.ts";
import { writeRouter, writeVector } from "./write_tensors.ts";

/** Blocks up to this size overlap: SmolLM2's have 14 MB, and their four inputs do not keep two workers equally busy. */
const OVERLAP_BYTES = 2 ** 28;

/** What is known of the blocks once they are written. */
export interface CompressedBlocks {
  readonly layers: readonly LayerReport[];
  readonly insight: InsightCollector;
}

/** Compresses and writes all blocks in order; the next one begins while workers end the last, unless it needs its outputs. */
export async function compressBlocks(
  plans: Plans,
  residuals: Residuals,
  context: CompressionContext,
): Promise<CompressedBlocks> {
  const { checkpoint: { spec }, progress, recipe } = context;
  const blocks = new Blocks({ plans, residuals, context });
  const first = await blocks.resume();
  const overlap = recipe.calibration.statistics === "dense" && blockBytes(spec) <= OVERLAP_BYTES;
  let next: BlockUnderWay | null = null;
  for (let i = first; i < spec.blocks; i++) {
    const block: BlockUnderWay = next ?? await blocks.begin(i, null);
    next = overlap && i + 1 < spec.blocks ? await blocks.begin(i + 1, block) : null;
    await blocks.end(i, block);
    progress.report("compress", i + 1, spec.blocks, `block ${i}`);
    collectBehind(i);
  }
  return blocks;
}

/** As the artifact takes it: smaller when whole heads and channels went. */
interface StoredBlock {
  readonly weights: BlockWeights;
  readonly statistics: BlockStatistics | null;
}

/** A block whose layers the workers have. */
interface BlockUnderWay {
  /** As they were read. */
  readonly weights: BlockWeights;
  readonly stored: Promise<StoredBlock>;
  readonly results: Promise<Map<LinearName, LayerResult>>;
}

interface BlocksOptions {
  readonly plans: Plans;
  readonly residuals: Residuals;
  readonly context: CompressionContext;
}

class Blocks implements CompressedBlocks {
  readonly layers: LayerReport[] = [];
  readonly insight: InsightCollector;
  readonly #streams: SavedStreams<null>;
  /** A copy of hidden states that waits for the blocks before it. */
  #pending: PendingStream | null = null;
  #finished = 0;

  constructor(readonly options: BlocksOptions) {
    const { context: { pool, work, options: { copyShare } } } = options;
    this.insight = new InsightCollector(pool);
    this.#streams = new SavedStreams({ journal: work.journal, name: BLOCK_STREAM, costShare: copyShare });
  }

  /** Takes over the blocks that an earlier run wrote, and brings the hidden states behind them. @returns how many */
  async resume(): Promise<number> {
    const { plans, context } = this.options, { finished, progress, checkpoint: { spec } } = context;
    for (const { layers, insight, pruning } of finished) {
      this.layers.push(...layers);
      this.insight.restore(insight);
      if (pruning) plans.pruning?.restore(pruning);
    }
    this.#finished = finished.length;
    if (finished.length > 0) {
      progress.report("compress", finished.length, spec.blocks, resumedAt(finished.length, spec.blocks));
    }
    const isOver = finished.length === spec.blocks && earlierDenseQuality(context) !== null;
    if (!plans.statistics && !isOver) await this.#passFinished();
    return finished.length;
  }

  /** From the last copy of hidden states on, through blocks that are compressed already. */
  async #passFinished(): Promise<void> {
    const { context: { checkpoint } } = this.options;
    const from = this.#streams.restore(this.#parts())?.position ?? 0;
    for (let i = from; i < this.#finished; i++) {
      await this.#statistics(i, await readBlock(checkpoint, i), null);
    }
  }

  #parts(): StreamParts {
    const { residuals, context: { checkpoint: { spec } } } = this.options;
    return streamParts(residuals, spec.hiddenSize);
  }

  /** Copies the hidden states before a block; the copy counts once all blocks before it are written. */
  async #saveStream(index: number): Promise<void> {
    const { plans, context: { finished } } = this.options;
    if (plans.statistics || index === finished.length) return;
    this.#pending = this.#streams.save(index, this.#parts(), null) ?? this.#pending;
    await this.#commitStream();
  }

  async #commitStream(): Promise<void> {
    if (!this.#pending || this.#pending.position > this.#finished) return;
    await this.#pending.commit();
    this.#pending = null;
  }

  /** @param last the block that workers still have */
  async begin(index: number, last: BlockUnderWay | null): Promise<BlockUnderWay> {
    const { plans, context } = this.options, { checkpoint, progress } = context;
    const place = { block: placeOf(index) };
    await progress.time("write", () => this.#saveStream(index), place);
    const weights = await progress.time("read", () => readBlock(checkpoint, index), place);
    const statistics = await this.#statistics(index, weights, last);
    await progress.time("compress", () => this.insight.addBlock(weights, statistics), place);
    const stored: Promise<StoredBlock> = plans.pruning && statistics
      ? plans.pruning.prune(weights, statistics)
      : Promise.resolve({ weights, statistics });
    const results = stored.then((block) => compressLayers(block, { index, plan: plans.of(index), context }));
    results.catch(() => {}); // waited for in end(), or never when another block fails
    return { weights, stored, results };
  }

  /** As a pass for the plans has collected them, or from one over this block. */
  async #statistics(
    index: number,
    weights: BlockWeights,
    last: BlockUnderWay | null,
  ): Promise<BlockStatistics | null> {
    const { plans, residuals, context } = this.options, { recipe, progress, checkpoint } = context;
    if (plans.statistics) return plans.statistics.get(index);
    const write = recipe.calibration.statistics === "dense";
    const found = await progress.time(
      "calibrate",
      () =>
        passWithStatistics(weights, residuals, {
          block: index,
          moments: needsMoments(recipe),
          write,
          context,
        }),
      {
        block: placeOf(index),
        ...last ? { behind: { phase: "compress", work: last.results, block: placeOf(index - 1) } } : {},
      },
    );
    progress.report("calibrate", index + 1, checkpoint.spec.blocks);
    return found;
  }

  async end(index: number, { weights, stored, results }: BlockUnderWay): Promise<void> {
    const { residuals, context } = this.options, { recipe, progress } = context;
    const place = { block: placeOf(index) };
    const found = await progress.time("compress", () => results, place);
    const block = await stored;
    await progress.time("write", async () => {
      await this.#write(index, block, found);
      await this.#keep(index);
    }, place);
    if (recipe.calibration.statistics === "dense" || !block.statistics) return;
    // What is stored stands in `weights` now.
    const behind = () => pass(residuals.calibration, weights, { block: index, context });
    await progress.time("calibrate", behind, place);
  }

  /** For a run that resumes. */
  async #keep(index: number): Promise<void> {
    const { plans: { pruning }, context: { work: { journal }, writer } } = this.options;
    this.#finished = index + 1;
    if (!journal.keeps) return;
    await keepBlock(journal, index, {
      mark: await writer.mark(),
      layers: this.layers.filter(({ name }) => name.startsWith(`block.${index}.`)),
      insight: this.insight.block(index),
      pruning: pruning && pruning.state(index),
    });
    await this.#commitStream();
  }

  async #write(
    index: number,
    { weights, statistics }: StoredBlock,
    results: ReadonlyMap<LinearName, LayerResult>,
  ): Promise<void> {
    const { plans: { pruning }, context } = this.options, { writer, recipe, checkpoint } = context;
    const prefix = `block.${index}`;
    for (const [name, { data }] of Object.entries(weights)) {
      if (name === "router") await writeRouter(`${prefix}.router`, data, context);
      else if (!isLinear(name)) await writeVector(`${prefix}.${name}`, data, context); // norms and biases
    }
    if (statistics && recipe.values !== "f32") {
      for (const input of inputNames(checkpoint.spec)) {
        await writeVector(scaleName(index, input), inputScale(statistics[input].d, recipe), context);
      }
    }
    for (const name of linearNames(checkpoint.spec)) {
      const { tensors, report, insight } = results.get(name)!;
      for (const t of tensors) await writer.add(`${prefix}.${name}.${t.part}`, t.format, t.shape, t.bytes);
      this.layers.push(pruning?.report(index, name, report) ?? report);
      this.insight.addLayer(insight);
    }
  }
}

/** What one job takes: the layers of an input when they share its factored X'X, otherwise every layer is one. */
function jobGroups(spec: ModelSpec, statistics: BlockStatistics | null): InputGroup[] {
  return inputGroups(spec, linearNames(spec)).flatMap(({ input, names }) =>
    statistics?.[input].H ? [{ input, names }] : names.map((name) => ({ input, names: [name] }))
  );
}

/** All inputs of a block at once, those of the most work first: the pool's workers then end together. */
async function compressLayers(
  { weights, statistics }: StoredBlock,
  { index, plan, context: { recipe, checkpoint, pool, progress, blockChunks } }: {
    readonly index: number;
    readonly plan: BlockPlan;
    readonly context: CompressionContext;
  },
): Promise<Map<LinearName, LayerResult>> {
  const results = new Map<LinearName, LayerResult>();
  await Promise.all(
    jobGroups(checkpoint.spec, statistics).map(async ({ input, names }) => {
      const job: InputGroupJob = {
        kind: "inputGroup",
        layers: names.map((name) => ({
          name: `block.${index}.${name}`,
          W: weights[name].data,
          shape: [weights[name].shape[0], weights[name].shape[1]],
          plan: plan[name],
        })),
        d: statistics?.[input].d ?? null,
        H: statistics?.[input].H ?? null,
        recipe,
        blockChunks,
        replace: recipe.calibration.statistics === "sequential",
      };
      const found = await pool.run<"inputGroup">(job, inputGroupBytes(job));
      found.forEach((result, i) => {
        results.set(names[i], result);
        progress.addLayerError(result.report.error);
      });
    }),
  );
  return results;
}

const placeOf = (index: number): BlockPlace => ({ pass: "compress", index });
const scaleName = (block: number, input: InputName): string => `block.${block}.${input}.scale`;
