/** The pass over all blocks behind measured allocation: what a quick S + L of every layer costs (measured.ts uses it). */
import { type LinearName, linearShapes } from "../../models/spec.ts";
import { collectBehind, passWithStatistics } from "../block_pass.ts";
import type { CompressionContext, Residuals } from "../compression_context.ts";
import { type BlockWeights, firstSequences, readBlock } from "../forward/dense_forward.ts";
import type { Inputs } from "../inputs.ts";
import { inputGroupBytes } from "../input_group.ts";
import { compressedNames, inputGroups } from "../linear_layers.ts";
import { resumedAt } from "../progress.ts";
import { SavedStreams, type StreamParts, streamParts } from "../resume/streams.ts";
import { type BlockStatistics, shared } from "../statistics.ts";
import { type StatisticsEntries, StatisticsStore } from "../statistics_store.ts";
import type { Measurements } from "./measured.ts";
import { OWL_SEQUENCES } from "./outlier_pass.ts";
import type { LayerProbe, ProbeJob } from "./probe_job.ts";
import { Sensitivity } from "./sensitivity.ts";

/** The quick S + L of measured allocation has the recipe's rate within these: its errors must neither vanish nor drown the model. */
const PROBE_RATES = { least: 0.3, most: 0.7 };

/** Where a layer's quick S + L goes: `[dOut, dIn]`, the same for all blocks. */
type Replacements = Readonly<Partial<Record<LinearName, Float32Array<SharedArrayBuffer>>>>;

/**
 * Takes both texts through the dense model; with sequential statistics copies of them, since compression begins again
 * behind it.
 *
 * @returns statistics of all blocks, unless compression needs its own
 */
export async function measureLayers(
  inputs: Inputs,
  residuals: Residuals,
  context: CompressionContext,
): Promise<{ readonly measurements: Measurements; readonly statistics: StatisticsStore | null }> {
  const { options, recipe, checkpoint, progress, pool, space, work: { journal } } = context,
    { spec } = checkpoint;
  const names = compressedNames(spec, recipe), shapes = linearShapes(spec);
  const sensitivity = new Sensitivity({ checkpoint, pool, names }, residuals.calibration);
  const sequential = recipe.calibration.statistics === "sequential";
  const own = sequential ? copyForMeasuring(residuals, spec.hiddenSize) : residuals;
  const streams = new SavedStreams<Measured>({ journal, name: "measuring", costShare: options.copyShare });
  const parts = (): StreamParts => ({
    ...streamParts(own, spec.hiddenSize),
    sensitivity: sensitivity.states,
  });
  const kept = streams.restore(parts()), first = kept?.position ?? 0;
  if (kept) progress.report("calibrate", first, spec.blocks, resumedAt(first, spec.blocks));
  sensitivity.resume(first);
  const statistics = new StatisticsStore(journal.keeps ? journal : space, kept?.rest.statistics);
  const probes: Record<string, LayerProbe>[] = [...kept?.rest.probes ?? []];
  const replacements: Replacements = Object.fromEntries(
    names.map((name) => [name, shared(shapes[name]![0] * shapes[name]![1])]),
  );
  for (let i = first; i < spec.blocks; i++) {
    if (i > first) await streams.save(i, parts(), { probes, statistics: statistics.entries() })?.commit();
    const place = { block: { pass: "measure", index: i } } as const;
    const weights = await progress.time("read", () => readBlock(checkpoint, i), place);
    const found = await progress.time(
      "calibrate",
      () => passWithStatistics(weights, own, { block: i, moments: true, write: true, context }),
      place,
    );
    progress.report("calibrate", i + 1, spec.blocks);
    if (!sequential) statistics.put(i, found!);
    await progress.time("allocate", async () => {
      probes.push(await probe(weights, found!, { replacements, context }));
      await sensitivity.advance(weights, replacements);
    }, place);
    progress.report("allocate", i + 1, spec.blocks, `block ${i}`);
    collectBehind(i);
  }
  const divergences = await progress.time(
    "allocate",
    () =>
      inputs.kind === "tokens" && spec.attention.causal
        ? sensitivity.divergences(inputs.calibration)
        : sensitivity.differences(),
  );
  return { measurements: { probes, divergences }, statistics: sequential ? null : statistics };
}

/** What a run that resumes knows of the blocks behind it. */
interface Measured {
  readonly probes: readonly Record<string, LayerProbe>[];
  readonly statistics: StatisticsEntries;
}

/** Statistics of the dense model do not serve a sequential compression. */
function copyForMeasuring({ calibration, heldOut }: Residuals, hiddenSize: number): Residuals {
  const sequences = Math.min(OWL_SEQUENCES, calibration.sequences);
  return {
    calibration: firstSequences(calibration, sequences, hiddenSize),
    heldOut: { ...heldOut, sequences: 0 },
  };
}

/** Writes a quick S + L of each of a block's layers to `replacements`. */
async function probe(
  weights: BlockWeights,
  statistics: BlockStatistics,
  { replacements, context: { recipe, checkpoint, pool } }: {
    readonly replacements: Replacements;
    readonly context: CompressionContext;
  },
): Promise<Record<string, LayerProbe>> {
  const groups = await Promise.all(
    inputGroups(checkpoint.spec, compressedNames(checkpoint.spec, recipe)).map(async (group) => {
      const job: ProbeJob = {
        kind: "probe",
        layers: group.names.map((name) => ({
          W: weights[name].data,
          shape: [weights[name].shape[0], weights[name].shape[1]],
          out: replacements[name]!,
        })),
        d: statistics[group.input].d,
        H: statistics[group.input].H!,
        rounding: recipe.budget && recipe.rounding,
        rate: Math.min(PROBE_RATES.most, Math.max(PROBE_RATES.least, recipe.rate)),
      };
      const found = await pool.run<"probe">(job, inputGroupBytes(job));
      return group.names.map((name, i) => [name, found[i]] as const);
    }),
  );
  return Object.fromEntries(groups.flat()); // in the groups' order, whichever ended first
}
