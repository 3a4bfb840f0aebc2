/**
 * One compression from source model to artifact: calibration text, one pass over the blocks (statistics, then all of
 * the block's layers in parallel), artifact, perplexity. Call it from any thread; the heavy work runs in workers.
 */
import { basename } from "node:path";
import { OatmillError } from "../errors.ts";
import { collectGarbage } from "../engine/collect_garbage.ts";
import { measureFormatTimes } from "../kernels/format_times.ts";
import type { Checkpoint, WeightRole } from "../models/checkpoint.ts";
import { ArtifactWriter, openArtifact, updateHeader } from "../models/formats/artifact.ts";
import type { ArtifactHeader, LayerReport } from "../models/formats/artifact_header.ts";
import { encodeInsight, INSIGHT_FILE } from "../models/formats/insight_file.ts";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { isSparseOnly, patternGroups, type Recipe, recipeSchema } from "../models/recipe.ts";
import {
  type InputName,
  LINEAR_INPUT,
  type LinearName,
  linearShapes,
  type ModelSpec,
} from "../models/spec.ts";
import { loadTokenizer } from "../models/tokenizer.ts";
import { checkTokenizerJson } from "../models/tokenizer_check.ts";
import { groupRates } from "./allocation/group_rates.ts";
import { measuredPlans } from "./allocation/measured.ts";
import { blockValues } from "./allocation/mixed_values.ts";
import { owlRates } from "./allocation/owl.ts";
import type { LayerProbe, ProbeJob } from "./allocation/probe_job.ts";
import { Sensitivity } from "./allocation/sensitivity.ts";
import { uniformRates } from "./allocation/uniform.ts";
import { evaluationSequences, type Sampler, textSequences } from "./calibration.ts";
import { servedPerplexity } from "./evaluation/served_perplexity.ts";
import { blockWeights, INPUT_NAMES } from "./forward/block_graph.ts";
import {
  type BlockWeights,
  densePerplexity,
  embed,
  firstSequences,
  readBlock,
  type Residual,
  runBlockOver,
} from "./forward/dense_forward.ts";
import { checkStatistics, checkWeights } from "./finite.ts";
import { sparseRate } from "./dense_layers.ts";
import { InsightCollector } from "./insight/collector.ts";
import { inputGroupBytes, type InputGroupJob } from "./input_group.ts";
import type { LayerResult } from "./layer.ts";
import { type LayerPlan, planAtRate } from "./layer_plan.ts";
import { LinalgPool } from "./linalg/pool.ts";
import { layerMethod } from "./methods/mod.ts";
import { otherBytes } from "./other_bytes.ts";
import { ProgressReporter } from "./progress.ts";
import { inputScale } from "./quantize.ts";
import { sampleSequences } from "./sampling.ts";
import { type BlockStatistics, shared, toShared } from "./statistics.ts";
import { StatisticsStore } from "./statistics_store.ts";
import { BlockPruning } from "./structured/block_pruning.ts";
import { chooseBlockChunks, denseValues, factorKind } from "./stored_parts.ts";
import type { CompressOptions, CompressResult } from "./types.ts";
import { WorkSpace } from "./work_space.ts";

const VERSION = "0.1.0";

/**
 * Tokens behind each H, at most: the reference rows (64 sequences of 512) stand on as many. Half of them would save 10 s of
 * SmolLM2's 190 s and cost 5 perplexity at rate 0.5: the choice of entries fits what it sees.
 */
const MOMENT_TOKENS = 32_768;
/** Sequences behind OWL's outlier ratios, which take a pass of their own: 1/8 of the default calibration. */
const OWL_SEQUENCES = 16;

/** The quick S + L of measured allocation has the recipe's rate within these: its errors must neither vanish nor drown the model. */
const PROBE_RATES = { least: 0.3, most: 0.7 };
/** Blocks up to this size overlap: SmolLM2's have 14 MB, and their four inputs do not keep two workers equally busy. */
const OVERLAP_BYTES = 2 ** 28;
/** A block passed without statistics. */
const PLAIN = { collect: false, momentSequences: 0, write: true, sink: false };

/**
 * @throws {OatmillError} invalid_recipe, conflict (`out` exists), cancelled, storage_failed, and what reading the
 * source throws. Nothing is left at `out` after an error.
 */
export async function compress(options: CompressOptions): Promise<CompressResult> {
  const start = performance.now();
  const recipe = parseRecipe(options.recipe);
  using progress = new ProgressReporter(options);
  const checkpoint = await progress.time("read", () => openCheckpoint(options.source));
  try {
    using pool = new LinalgPool(options.threads);
    // Before hours of work, not at their end: that the rate can be met, and that the artifact's tokenizer was checked.
    sparseRate(checkpoint.spec, recipe);
    if (checkpoint.tokenizerFiles) checkTokenizerJson(checkpoint.tokenizerFiles.tokenizer);
    const writer = await ArtifactWriter.create(options.out, { maxTensors: maxTensors(checkpoint.spec) });
    try {
      await progress.time("read", () => checkWeights(checkpoint, () => progress.checkCancelled()));
      using space = WorkSpace.beside(options.out, options.workMemoryBytes);
      const run = new Compression({ options, recipe, progress, checkpoint, pool, writer, space });
      const header = await run.run();
      return {
        artifact: options.out,
        header,
        seconds: (performance.now() - start) / 1000,
        peakRssBytes: progress.peakRssBytes,
        phases: progress.phases,
      };
    } catch (error) {
      await writer.abort();
      throw error;
    }
  } finally {
    checkpoint.close();
  }
}

function parseRecipe(input: unknown): Recipe {
  const parsed = recipeSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new OatmillError(
    "invalid_recipe",
    issue.path.length > 0
      ? `Recipe field "${issue.path.join(".")}": ${issue.message}`
      : `Recipe: ${issue.message}`,
    issue.path.join(".") || null,
  );
}

/** Embedding, final norm, head; a block: two norms, four scales, seven layers of three parts, each perhaps with a bias. */
const maxTensors = ({ blocks }: ModelSpec): number => 6 + blocks * (4 + 4 + 7 * 4);

interface Context {
  readonly options: CompressOptions;
  readonly recipe: Recipe;
  readonly progress: ProgressReporter;
  readonly checkpoint: Checkpoint;
  readonly pool: LinalgPool;
  readonly writer: ArtifactWriter;
  readonly space: WorkSpace;
}

/** The text a compression works on. */
interface Texts {
  /** Empty when nothing asks for statistics. */
  readonly calibration: readonly Int32Array[];
  readonly heldOut: readonly Int32Array[];
  readonly heldOutName: string;
}

interface Residuals {
  readonly calibration: Residual;
  readonly heldOut: Residual;
}

interface StoredBlock {
  readonly weights: BlockWeights;
  readonly statistics: BlockStatistics | null;
}

/** A block whose layers the workers have. */
interface BlockUnderWay {
  /** As they were read. */
  readonly weights: BlockWeights;
  /** What the artifact takes: smaller when whole heads and channels went. */
  readonly stored: Promise<StoredBlock>;
  readonly results: Promise<Map<LinearName, LayerResult>>;
}

/** By layer. */
type BlockPlan = Readonly<Record<string, LayerPlan>>;
interface Plans {
  of(block: number): BlockPlan;
  /** Of all blocks, when the plans took a pass over them. */
  readonly statistics: StatisticsStore | null;
}

class Compression {
  readonly #layers: LayerReport[] = [];
  readonly #blockChunks: number;
  readonly #insight: InsightCollector;
  /** With method `structured`, once the blocks' rates are known. */
  #pruning: BlockPruning | null = null;

  constructor(readonly context: Context) {
    this.#insight = new InsightCollector(context.pool);
    this.#blockChunks = chooseBlockChunks(context.checkpoint.spec);
  }

  async run(): Promise<ArtifactHeader> {
    const { progress, checkpoint, writer, options, recipe } = this.context;
    const texts = await progress.time("sample", () => this.#texts());
    const { calibration, heldOut } = await this.#embed(texts);
    const plans = await this.#plans(texts, { calibration, heldOut });
    await this.#blocks(plans, { calibration, heldOut });
    const dense = await progress.time(
      "evaluate",
      () => densePerplexity(heldOut, texts.heldOut, this.context),
    );
    const header = await progress.time("write", async () => {
      await this.#addNorm("finalNorm");
      if (!checkpoint.spec.tiedEmbeddings) await this.#addTable("head", (await checkpoint.read("head")).data);
      const from = {
        text: basename(recipe.calibration.text),
        sequences: calibration.sequences,
        length: calibration.length,
      };
      const insight = this.#insight.result(calibration.sequences > 0 ? from : null);
      await writer.addFile(INSIGHT_FILE, encodeInsight(insight));
      return await writer.finish({
        oatmill: VERSION,
        created: new Date().toISOString(),
        name: options.name ?? basename(options.out),
        spec: this.#pruning?.spec ?? checkpoint.spec,
        recipe: recipe.budget ? { ...recipe, rate: meanRate(this.#layers) } : recipe,
        source: {
          file: basename(checkpoint.path),
          format: checkpoint.format,
          tensorBytes: checkpoint.tensorBytes,
        },
        blockChunks: this.#blockChunks,
        layers: this.#layers,
        perplexity: null,
        denseBytes: denseHalfBytes(checkpoint),
      }, checkpoint.tokenizerFiles);
    });
    this.context.pool.close(); // the workers' memory would add to the engine's
    return await this.#evaluate(header, texts, dense);
  }

  /** Calibration and held-out sequences; the default held-out text is a part of the calibration source held back. */
  async #texts(): Promise<Texts> {
    const { recipe, checkpoint, progress } = this.context;
    const { calibration: wanted, evaluate } = recipe;
    const length = Math.min(wanted.length, checkpoint.spec.contextLength);
    const heldBack = evaluate.text === null ? Math.max(1, Math.floor(evaluate.tokens / length)) : 0;
    const needed = needsCalibration(recipe) ? wanted.sequences : 0;
    const request = { sequences: needed + heldBack, length, seed: wanted.seed };
    const found = request.sequences === 0
      ? []
      : wanted.text === "self"
      ? await this.#sampler(request.sequences, length, wanted.seed)
      : await textSequences(wanted.text, {
        tokenizer: () => this.#tokenizer(),
        vocabSize: checkpoint.spec.vocabSize,
      }, request);
    // A short text is shared in the same proportion, with at least one sequence each.
    const back = Math.min(
      heldBack,
      Math.max(+(heldBack > 0), Math.round(found.length * heldBack / request.sequences)),
    );
    const calibration = found.slice(0, found.length - back);
    progress.report("sample", found.length, request.sequences);
    if (needed > 0 && calibration.length === 0) {
      throw new OatmillError(
        "invalid_recipe",
        `Cannot calibrate on "${wanted.text}": it has ${found.length} sequences of ${length} tokens, must have 2`,
        "calibration.text",
      );
    }
    const heldOut = evaluate.text === null
      ? found.slice(found.length - back)
      : await evaluationSequences(evaluate.text, this.#tokenizer(), { tokens: evaluate.tokens, length });
    return {
      calibration,
      heldOut,
      heldOutName: evaluate.text ? basename(evaluate.text) : `held back from ${basename(wanted.text)}`,
    };
  }

  #tokenizer() {
    const { checkpoint } = this.context;
    if (!checkpoint.tokenizerFiles) {
      throw new OatmillError(
        "invalid_tokenizer",
        `Cannot read calibration text: "${checkpoint.path}" has no tokenizer, use calibration text "self"`,
      );
    }
    return loadTokenizer(checkpoint.tokenizerFiles);
  }

  readonly #sampler: Sampler = (sequences, length, seed) => {
    const { checkpoint, options, progress } = this.context;
    return sampleSequences(packDense(checkpoint, { values: "int8" }), { sequences, length, seed }, {
      threads: options.threads,
      signal: options.signal,
      onStep: (done, total) => progress.report("sample", done, total),
    });
  };

  async #embed({ calibration, heldOut }: Texts): Promise<{ calibration: Residual; heldOut: Residual }> {
    const { progress, checkpoint, space } = this.context, width = checkpoint.spec.hiddenSize;
    const table = await progress.time("read", async () => (await checkpoint.read("embedding")).data);
    await progress.time("write", () => this.#addTable("embedding", table));
    const residual = (name: string, sequences: readonly Int32Array[]) =>
      embed(table, sequences, { width, place: (values) => space.place(name, values) });
    return { calibration: residual("calibration", calibration), heldOut: residual("held-out", heldOut) };
  }

  /** OWL's outlier ratios of the blocks, from a dense pass of its own over a few sequences; null when nothing asks for them. */
  async #outlierRatios(calibration: Residual): Promise<number[] | null> {
    const { recipe, checkpoint, progress, pool } = this.context;
    const { blocks, hiddenSize } = checkpoint.spec;
    if (recipe.mean_bits === null && !spreadsRates(recipe)) return null;
    const names = compressedNames(checkpoint.spec, recipe);
    return await progress.time("allocate", async () => {
      const sequences = Math.min(OWL_SEQUENCES, calibration.sequences);
      const residual = firstSequences(calibration, sequences, hiddenSize);
      const ratios: number[] = [];
      for (let i = 0; i < blocks; i++) {
        progress.checkCancelled();
        const weights = await readBlock(checkpoint, i);
        const statistics = await runBlockOver(residual, weights, {
          checkpoint,
          pool,
          collect: true,
          momentSequences: 0,
          write: true,
          sink: false,
        });
        const layers = names.map((name) => ({
          W: weights[name].data,
          d: statistics![LINEAR_INPUT[name]].d,
        }));
        ratios.push(await pool.run<"outliers">({ kind: "outliers", layers, m: recipe.allocation.m }));
        progress.report("allocate", i + 1, blocks);
      }
      return ratios;
    });
  }

  /** What is to become of every layer. Measured losses take a pass over all blocks first, which keeps its statistics. */
  async #plans(texts: Texts, residuals: Residuals): Promise<Plans> {
    const { recipe, checkpoint: { spec } } = this.context;
    const ratios = await this.#outlierRatios(residuals.calibration);
    const values = blockValues(recipe, { blocks: spec.blocks, ratios });
    if (
      recipe.allocation.kind === "measured" && recipe.method !== "none" && (recipe.budget || recipe.rate > 0)
    ) {
      return await this.#measure(texts, residuals, values);
    }
    const shapes = linearShapes(spec), rates = blockRates(spec, recipe, ratios);
    if (recipe.method === "structured" && recipe.rate > 0) {
      this.#pruning = new BlockPruning(spec, { ...recipe, rates, pool: this.context.pool });
    }
    const of = (block: number): BlockPlan => {
      const options = { recipe: { ...recipe, values: values[block] }, blockChunks: this.#blockChunks };
      return Object.fromEntries(
        linearNames(spec).map((name) => {
          const rate = recipe.dense.includes(name) ? 0 : rates[block];
          return [name, planAtRate(shapes[name]!, rate, options)];
        }),
      );
    };
    return { of, statistics: null };
  }

  /** @param values of each block */
  async #measure(
    texts: Texts,
    residuals: Residuals,
    values: readonly Recipe["values"][],
  ): Promise<Plans> {
    const { recipe, checkpoint, progress, pool, space } = this.context, { spec } = checkpoint;
    const names = compressedNames(spec, recipe);
    const sensitivity = new Sensitivity({ checkpoint, pool, names }, residuals.calibration);
    const statistics = new StatisticsStore(space), probes: Record<string, LayerProbe>[] = [];
    const sequential = recipe.calibration.statistics === "sequential";
    const own = sequential ? this.#copyForMeasuring(residuals) : residuals;
    const shapes = linearShapes(spec),
      replacements = Object.fromEntries(
        names.map((name) => [name, shared(shapes[name]![0] * shapes[name]![1])]),
      );
    for (let i = 0; i < spec.blocks; i++) {
      const weights = await progress.time("read", () => readBlock(checkpoint, i));
      const found = await progress.time(
        "calibrate",
        () => this.#statistics(weights, own, { block: i, moments: true, write: true }),
      );
      progress.report("calibrate", i + 1, spec.blocks);
      if (!sequential) statistics.put(i, found!);
      await progress.time("allocate", async () => {
        probes.push(await this.#probe(weights, found!, replacements));
        await sensitivity.advance(weights, replacements);
      });
      progress.report("allocate", i + 1, spec.blocks, `block ${i}`);
      collectBehind(i);
    }
    const plans = await progress.time("allocate", async () => {
      const divergences = await sensitivity.divergences(texts.calibration);
      return measuredPlans({ probes, divergences }, {
        spec,
        recipe,
        values,
        blockChunks: this.#blockChunks,
        otherBytes: otherBytes(spec, recipe),
        speed: recipe.budget && "ms_per_token" in recipe.budget
          ? { times: await measureFormatTimes(), threads: pool.threads }
          : null,
      });
    });
    const dense: BlockPlan = Object.fromEntries(
      recipe.dense.map((name) => [name, { budget: null, values: denseValues(recipe) }]),
    );
    return { of: (block) => ({ ...dense, ...plans[block] }), statistics: sequential ? null : statistics };
  }

  /** Statistics of the dense model do not serve a sequential compression, which begins again behind them. */
  #copyForMeasuring({ calibration, heldOut }: Residuals): Residuals {
    const sequences = Math.min(OWL_SEQUENCES, calibration.sequences);
    return {
      calibration: firstSequences(calibration, sequences, this.context.checkpoint.spec.hiddenSize),
      heldOut: { ...heldOut, sequences: 0 },
    };
  }

  /** Writes a quick S + L of each of a block's layers to `replacements`. */
  async #probe(
    weights: BlockWeights,
    statistics: BlockStatistics,
    replacements: Readonly<Record<string, Float32Array<SharedArrayBuffer>>>,
  ): Promise<Record<string, LayerProbe>> {
    const { recipe, checkpoint, pool } = this.context;
    const names = Object.keys(replacements).filter(isLinear), measured: Record<string, LayerProbe> = {};
    await Promise.all(
      inputGroups(checkpoint.spec, names).map(async (group) => {
        const job: ProbeJob = {
          kind: "probe",
          layers: group.names.map((name) => ({
            W: weights[name].data,
            shape: [weights[name].shape[0], weights[name].shape[1]],
            out: replacements[name],
          })),
          d: statistics[group.input].d,
          H: statistics[group.input].H!,
          rounding: recipe.budget && recipe.rounding,
          rate: Math.min(PROBE_RATES.most, Math.max(PROBE_RATES.least, recipe.rate)),
        };
        const found = await pool.run<"probe">(job, inputGroupBytes(job));
        group.names.forEach((name, i) => measured[name] = found[i]);
      }),
    );
    return measured;
  }

  /** Takes the hidden states through a block; what its linear layers read on the way. */
  async #statistics(
    weights: BlockWeights,
    { calibration, heldOut }: Residuals,
    { block, moments, write }: { readonly block: number; readonly moments: boolean; readonly write: boolean },
  ): Promise<BlockStatistics | null> {
    const context = { checkpoint: this.context.checkpoint, pool: this.context.pool };
    await runBlockOver(heldOut, weights, { ...context, ...PLAIN });
    const statistics = await runBlockOver(calibration, weights, {
      ...context,
      collect: true,
      momentSequences: moments ? this.#momentSequences(calibration) : 0,
      write,
      sink: moments,
    });
    return checkStatistics(statistics, block);
  }

  /** Compresses and writes all blocks in order; the next one begins while workers end the last, unless it needs its outputs. */
  async #blocks(plans: Plans, residuals: Residuals): Promise<void> {
    const { checkpoint: { spec }, progress, recipe } = this.context;
    const begin = (i: number) =>
      this.#begin(i, plans.of(i), { ...residuals, known: plans.statistics?.get(i) });
    const overlap = recipe.calibration.statistics === "dense" && blockBytes(spec) <= OVERLAP_BYTES;
    let next: BlockUnderWay | null = null;
    for (let i = 0; i < spec.blocks; i++) {
      const block: BlockUnderWay = next ?? await begin(i);
      next = overlap && i + 1 < spec.blocks ? await begin(i + 1) : null;
      await this.#end(i, block, residuals);
      progress.report("compress", i + 1, spec.blocks, `block ${i}`);
      collectBehind(i);
    }
  }

  /** @param known statistics of the block, when the pass for the allocation has collected them */
  async #begin(
    index: number,
    plan: BlockPlan,
    { known, ...residuals }: Residuals & { readonly known: BlockStatistics | undefined },
  ): Promise<BlockUnderWay> {
    const { recipe, checkpoint, progress } = this.context;
    const write = recipe.calibration.statistics === "dense";
    const weights = await progress.time("read", () => readBlock(checkpoint, index));
    const statistics = known ?? await progress.time(
      "calibrate",
      () => this.#statistics(weights, residuals, { block: index, moments: needsMoments(recipe), write }),
    );
    if (!known) progress.report("calibrate", index + 1, checkpoint.spec.blocks);
    await progress.time("compress", () => this.#insight.addBlock(weights, statistics));
    const stored: Promise<StoredBlock> = this.#pruning && statistics
      ? this.#pruning.prune(weights, statistics)
      : Promise.resolve({ weights, statistics });
    const results = stored.then(({ weights, statistics }) =>
      this.#layersOf(index, weights, { statistics, plan })
    );
    results.catch(() => {}); // waited for in #end(), or never when another block fails
    return { weights, stored, results };
  }

  async #end(index: number, block: BlockUnderWay, { calibration }: Residuals): Promise<void> {
    const { recipe, checkpoint, progress, pool } = this.context;
    const results = await progress.time("compress", () => block.results);
    const stored = await block.stored, { statistics } = stored;
    await progress.time("write", () => this.#writeBlock(index, stored.weights, { statistics, results }));
    if (recipe.calibration.statistics === "dense" || !statistics) return;
    // What is stored stands in `weights` now.
    const context = { checkpoint, pool, ...PLAIN };
    await progress.time("calibrate", () => runBlockOver(calibration, block.weights, context));
  }

  #momentSequences({ sequences, length }: Residual): number {
    return Math.min(sequences, Math.max(1, Math.floor(MOMENT_TOKENS / length)));
  }

  /** All inputs of a block at once, those of the most work first: the pool's workers then end together. */
  async #layersOf(
    index: number,
    weights: BlockWeights,
    { statistics, plan }: { readonly statistics: BlockStatistics | null; readonly plan: BlockPlan },
  ): Promise<Map<LinearName, LayerResult>> {
    const { recipe, checkpoint, pool, progress } = this.context;
    const results = new Map<LinearName, LayerResult>();
    await Promise.all(
      inputGroups(checkpoint.spec, linearNames(checkpoint.spec)).map(async ({ input, names }) => {
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
          blockChunks: this.#blockChunks,
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

  async #writeBlock(
    index: number,
    weights: BlockWeights,
    { statistics, results }: {
      readonly statistics: BlockStatistics | null;
      readonly results: ReadonlyMap<LinearName, LayerResult>;
    },
  ): Promise<void> {
    const { writer, recipe, checkpoint } = this.context;
    const prefix = `block.${index}`;
    for (const [name, { data }] of Object.entries(weights)) {
      if (!isLinear(name)) await this.#addVector(`${prefix}.${name}`, data); // norms and biases
    }
    if (statistics && recipe.values !== "f32") {
      for (const input of INPUT_NAMES) {
        await this.#addVector(scaleName(index, input), inputScale(statistics[input].d, recipe));
      }
    }
    for (const name of linearNames(checkpoint.spec)) {
      const { tensors, report, insight } = results.get(name)!;
      for (const t of tensors) await writer.add(`${prefix}.${name}.${t.part}`, t.format, t.shape, t.bytes);
      this.#layers.push(this.#pruning?.report(index, name, report) ?? report);
      this.#insight.addLayer(insight);
    }
  }

  async #addVector(name: string, values: Float32Array): Promise<void> {
    const bytes = new Uint8Array(new Float32Array(values).buffer);
    await this.context.writer.add(name, { kind: "vector" }, [values.length], bytes);
  }

  async #addNorm(role: WeightRole): Promise<void> {
    const { checkpoint } = this.context;
    for (const name of [role, `${role}.bias` as WeightRole]) {
      if (checkpoint.has(name)) await this.#addVector(name, (await checkpoint.read(name)).data);
    }
  }

  /** Embedding or head, `[vocab, hidden]`: int8 also where the blocks have 4 bits. */
  async #addTable(name: "embedding" | "head", values: Float32Array): Promise<void> {
    const { recipe, checkpoint, pool, writer } = this.context;
    const kind = factorKind(recipe);
    const shape = [checkpoint.spec.vocabSize, checkpoint.spec.hiddenSize] as const;
    const bytes = await pool.run<"table">({ kind: "table", values: toShared(values), shape, format: kind });
    await writer.add(name, { kind }, shape, bytes);
  }

  /** Scores the artifact as it will be served and stores both perplexities in it. */
  async #evaluate(
    header: ArtifactHeader,
    { heldOut, heldOutName }: Texts,
    dense: { readonly perplexity: number; readonly tokens: number },
  ): Promise<ArtifactHeader> {
    const { options, progress } = this.context;
    try {
      const compressed = await progress.time(
        "evaluate",
        async () =>
          servedPerplexity(await openArtifact(options.out), heldOut, {
            threads: options.threads,
            signal: options.signal,
            onProgress: (done, total) => progress.report("evaluate", done, total),
          }),
      );
      progress.checkCancelled();
      const perplexity = { dense: dense.perplexity, compressed, tokens: dense.tokens, text: heldOutName };
      const measured = { ...header, perplexity };
      await updateHeader(options.out, measured);
      return measured;
    } catch (error) {
      await Deno.remove(options.out, { recursive: true }).catch(() => {});
      throw error;
    }
  }
}

const linearNames = (spec: ModelSpec): LinearName[] => Object.keys(linearShapes(spec)).filter(isLinear);
/** Without those that a recipe leaves dense; method `none` treats all alike. */
const compressedNames = (spec: ModelSpec, { method, dense }: Recipe): LinearName[] =>
  linearNames(spec).filter((name) => method === "none" || !dense.includes(name));

/** Whether blocks have rates of their own, by their outlier ratios. */
const spreadsRates = ({ allocation, method, rate }: Recipe): boolean =>
  allocation.kind === "owl" && method !== "none" && rate > 0;

/** Rates of the blocks' layers that are compressed. */
function blockRates(spec: ModelSpec, recipe: Recipe, ratios: readonly number[] | null): number[] {
  const rate = sparseRate(spec, recipe);
  if (!ratios || !spreadsRates(recipe)) return uniformRates(spec.blocks, rate);
  const rates = owlRates(ratios, { rate, lambda: recipe.allocation.lambda });
  const groups = patternGroups(recipe.pattern);
  return groups && isSparseOnly(recipe) ? groupRates(rates, groups) : rates;
}

/** Linear layers by the input they share, the most work (about dOut dIn²) first. */
function inputGroups(
  spec: ModelSpec,
  some: readonly LinearName[],
): { readonly input: InputName; readonly names: readonly LinearName[] }[] {
  const shapes = linearShapes(spec);
  const work = (names: readonly LinearName[]) =>
    names.reduce((sum, name) => sum + shapes[name]![0] * shapes[name]![1] ** 2, 0);
  return INPUT_NAMES
    .map((input) => ({ input, names: some.filter((name) => LINEAR_INPUT[name] === input) }))
    .filter(({ names }) => names.length > 0)
    .sort((a, b) => work(b.names) - work(a.names));
}

/** Whether calibration is wanted at all: dense weights that are rounded to nearest, in one kind of values, need none. */
const needsCalibration = (recipe: Recipe): boolean =>
  recipe.method !== "none" || roundsWithFeedback(recipe) || recipe.mean_bits !== null;

/** Whether X'X is wanted: by the rounding, the refit, or by the method itself. */
const needsMoments = (recipe: Recipe): boolean =>
  roundsWithFeedback(recipe) ||
  (recipe.method !== "none" && (recipe.refine || layerMethod(recipe)?.needs(recipe) === "moments"));

const roundsWithFeedback = ({ values, rounding }: Recipe): boolean =>
  values !== "f32" && rounding === "feedback";

/** Blocks between two collections: their shared memory stands outside the heap, which sees no reason to collect. */
const COLLECT_BLOCKS = 4;

function collectBehind(block: number): void {
  if (block % COLLECT_BLOCKS === COLLECT_BLOCKS - 1) collectGarbage();
}

/** Share of the layers' parameters that were removed. */
function meanRate(layers: readonly LayerReport[]): number {
  const size = ({ shape }: LayerReport) => shape[0] * shape[1];
  const all = layers.reduce((sum, layer) => sum + size(layer), 0);
  return Math.max(0, layers.reduce((sum, layer) => sum + layer.rate * size(layer), 0) / all);
}

/** Of the linear layers of a block, in f32. */
const blockBytes = (spec: ModelSpec): number =>
  4 * Object.values(linearShapes(spec)).reduce((sum, shape) => sum + shape![0] * shape![1], 0);

const isLinear = (name: string): name is LinearName => name in LINEAR_INPUT;
const scaleName = (block: number, input: InputName): string => `block.${block}.${input}.scale`;

/** Bytes of the whole model in dense float16. */
function denseHalfBytes(checkpoint: Checkpoint): number {
  const { spec } = checkpoint;
  const table = spec.vocabSize * spec.hiddenSize * (spec.tiedEmbeddings ? 1 : 2);
  const weights = blockWeights(spec, (name) => checkpoint.has(`block.0.${name}` as WeightRole));
  const block = Object.values(weights).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return 2 * (table + spec.blocks * block + spec.hiddenSize);
}
