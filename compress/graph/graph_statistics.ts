/** The graph as it came, over calibration inputs: what its layers read, and what it answers on those held back. */
import { withOutputs } from "../../engine/graph/value_types.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import { needsCalibration, needsMoments } from "../recipe_needs.ts";
import { type InputStatistics, shared, toShared } from "../statistics.ts";
import { calibrationInputs } from "./calibration_inputs.ts";
import type { GraphContext } from "./compress_graph.ts";
import type { ValueSums } from "./graph_job.ts";

/** One in so many inputs is held back, at least one, at most as many as tell something. */
const HELD_BACK = 8, MOST_HELD_BACK = 32;
/** X'X of so many bytes are gathered in one pass. */
const PASS_BYTES = 2 ** 29;

export interface Calibrated {
  /** By group; empty when nothing asks for them. */
  readonly statistics: readonly InputStatistics[];
  /** Not calibrated on, unless there was only one. */
  readonly heldBack: readonly GraphTensors[];
}

/** A value that layers of one group read. */
interface Collected {
  readonly group: number;
  readonly name: string;
  readonly cols: number;
}

/** @throws {OatmillError} invalid_recipe, non_finite_activations, invalid_request when the graph fails on the inputs */
export async function calibrate(context: GraphContext): Promise<Calibrated> {
  const { recipe, source, progress } = context;
  const needed = needsCalibration(recipe), { sequences } = recipe.calibration;
  const back = Math.min(MOST_HELD_BACK, Math.max(1, Math.floor(sequences / HELD_BACK)));
  const wanted = { ...recipe.calibration, sequences: (needed ? sequences : 0) + back };
  const inputs = await progress.time("sample", () => calibrationInputs(source, wanted));
  progress.report("sample", inputs.length, wanted.sequences);
  const share = Math.max(1, Math.round(inputs.length * back / wanted.sequences));
  const heldBack = inputs.slice(-share), own = inputs.slice(0, inputs.length - share);
  if (!needed) return { statistics: [], heldBack };
  const statistics = await progress.time("calibrate", () => gather(own.length > 0 ? own : inputs, context));
  return { statistics, heldBack };
}

async function gather(feeds: readonly GraphTensors[], context: GraphContext): Promise<InputStatistics[]> {
  const { recipe, source, layered: { layers }, groups, pool, progress } = context;
  const moments = needsMoments(recipe);
  const values = new Map<string, Collected>();
  layers.forEach(({ inputs, shape }, i) => {
    for (const name of inputs) values.set(`${groups[i]} ${name}`, { group: groups[i], name, cols: shape[1] });
  });
  const found: { readonly value: Collected; readonly sums: ValueSums }[] = [];
  for (const pass of passes([...values.values()], moments)) {
    progress.checkCancelled();
    const collect = pass.map(({ name, cols }) => ({ name, cols }));
    const model = withOutputs(source.model, [...new Set(collect.map(({ name }) => name))]);
    // All memory: one job, with all threads.
    const job = { kind: "graph", model, feeds, collect, moments, answers: [] } as const;
    const { sums } = await pool.run<"graph">(job, pool.memoryBytes, [model.buffer]);
    sums.forEach((s, i) => found.push({ value: pass[i], sums: s }));
    progress.report("calibrate", found.length, values.size);
  }
  const byGroup = Map.groupBy(found, ({ value }) => value.group);
  return Array.from(
    { length: byGroup.size },
    (_, group) => together(byGroup.get(group)!.map(({ sums }) => sums)),
  );
}

function passes(values: readonly Collected[], moments: boolean): Collected[][] {
  const all: Collected[][] = [[]];
  let bytes = 0;
  for (const value of values) {
    bytes += moments ? 4 * value.cols ** 2 : 0;
    if (bytes > PASS_BYTES && all.at(-1)!.length > 0) {
      all.push([]);
      bytes = 4 * value.cols ** 2;
    }
    all.at(-1)!.push(value);
  }
  return all;
}

/** All values of a group as one. */
function together(parts: readonly ValueSums[]): InputStatistics {
  const total = (of: (part: ValueSums) => number) => parts.reduce((sum, part) => sum + of(part), 0);
  const rows = total((part) => part.rows), momentRows = total((part) => part.momentRows);
  const d = toShared(
    Float32Array.from(parts[0].squares, (_, j) => Math.sqrt(total((part) => part.squares[j]) / rows)),
  );
  if (!parts[0].moments) return { d, H: null };
  const H = shared(parts[0].moments.length);
  for (const { moments } of parts) for (let i = 0; i < H.length; i++) H[i] += moments![i] / momentRows;
  return { d, H };
}
