/** How far a compressed graph's answers are from those of the graph as it came: measured with the artifact, on inputs held back. */
import { basename } from "node:path";
import { loadGraph } from "../../engine/graph/graph_engine.ts";
import { withOutputs } from "../../engine/graph/value_types.ts";
import { updateHeader } from "../../models/formats/artifact_writer.ts";
import {
  type GraphAgreement,
  type GraphHeader,
  openGraphArtifact,
} from "../../models/formats/graph_artifact.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import type { GraphContext } from "./compress_graph.ts";
import type { Calibrated } from "./graph_statistics.ts";

/** Stores the agreement in the artifact. */
export async function measureAgreement(
  header: GraphHeader,
  { heldBack }: Calibrated,
  { options, work, progress, source, recipe, pool }: GraphContext,
): Promise<GraphHeader> {
  const outputs = source.model.graph.output.map(({ name }) => name);
  const model = withOutputs(source.model, []);
  const job = {
    kind: "graph",
    model,
    feeds: heldBack,
    collect: [],
    moments: false,
    answers: outputs,
  } as const;
  const wanted = await progress.time(
    "evaluate",
    () => pool.run<"graph">(job, pool.memoryBytes, [model.buffer]),
  );
  const found = await progress.time("evaluate", () => answersOf(work.artifact, heldBack, options.threads));
  const text = `held back from ${basename(recipe.calibration.text)}`;
  const measured = { ...header, agreement: agreement(wanted.answers, found, { outputs, text }) };
  progress.checkCancelled();
  await updateHeader(work.artifact, measured);
  return measured;
}

async function answersOf(
  artifact: string,
  feeds: readonly GraphTensors[],
  threads: number | undefined,
): Promise<GraphTensors[]> {
  const engine = await loadGraph(await openGraphArtifact(artifact), { threads, tuning: { autotune: false } });
  try {
    const answers: GraphTensors[] = [];
    for (const one of feeds) answers.push(await engine.run(one));
    return answers;
  } finally {
    await engine.close();
  }
}

/** @param wanted answers of the graph as it came, `found` those of the compressed one, of the same inputs */
export function agreement(
  wanted: readonly GraphTensors[],
  found: readonly GraphTensors[],
  { outputs, text }: { readonly outputs: readonly string[]; readonly text: string },
): GraphAgreement {
  const floats = outputs.filter((name) => wanted[0]?.[name].data instanceof Float32Array);
  return {
    inputs: wanted.length,
    text,
    outputs: floats.map((name) => ({ name, ...difference(wanted, found, name) })),
    sameLabel: floats.includes("logits") ? sameLabel(wanted, found) : null,
  };
}

// Cast: only outputs of floats are asked for.
const valuesOf = (answers: GraphTensors, name: string) => answers[name].data as Float32Array<ArrayBuffer>;

function difference(wanted: readonly GraphTensors[], found: readonly GraphTensors[], name: string) {
  let lost = 0, all = 0, largest = 0;
  wanted.forEach((answers, run) => {
    const other = valuesOf(found[run], name);
    valuesOf(answers, name).forEach((y, i) => {
      const e = Math.abs(y - other[i]);
      lost += e * e;
      all += y * y;
      largest = Math.max(largest, e);
    });
  });
  return { error: all > 0 ? Math.sqrt(lost / all) : 0, largest };
}

function sameLabel(wanted: readonly GraphTensors[], found: readonly GraphTensors[]): number {
  let rows = 0, same = 0;
  wanted.forEach((answers, run) => {
    const cols = answers.logits.dims.at(-1)!;
    const [a, b] = [valuesOf(answers, "logits"), valuesOf(found[run], "logits")];
    for (let at = 0; at < a.length; at += cols, rows++) same += +(top(a, at, cols) === top(b, at, cols));
  });
  return rows > 0 ? same / rows : 0;
}

/** Index of the largest of a row. */
function top(values: Float32Array, from: number, cols: number): number {
  let best = 0;
  for (let i = 1; i < cols; i++) if (values[from + i] > values[from + best]) best = i;
  return best;
}
