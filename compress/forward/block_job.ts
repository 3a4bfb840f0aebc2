/** Worker side of the calibration forward: one block over a range of sequences, statistics reduced on the spot. */
import type { LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import { type InputName, linearShapes, type ModelSpec } from "../../models/spec.ts";
import { shared } from "../statistics.ts";
import { openValues, type Place } from "../work_space.ts";
import {
  blockGraph,
  type Collect,
  INPUT_NAMES,
  inputWidths,
  momentPanels,
  QUERY_BLOCK,
} from "./block_graph.ts";

/** About this many tokens pass through the graph at once: [2048, n] products run at full speed. */
const CHUNK_TOKENS = 2048;

export interface SharedTensor {
  readonly data: Float32Array<SharedArrayBuffer>;
  readonly shape: readonly number[];
}

export interface BlockJob {
  readonly kind: "block";
  readonly spec: ModelSpec;
  readonly weights: Readonly<Record<string, SharedTensor>>;
  /** `[sequences, length, hidden]`; this job's range is replaced by the block's output when `write` is set. */
  readonly x: Place;
  readonly length: number;
  readonly from: number;
  readonly to: number;
  /** Whether the sequences collect squares; the first `momentSequences` of the range collect moments as well. */
  readonly collect: boolean;
  readonly momentSequences: number;
  readonly write: boolean;
}

/** Sums over a job's sequences. */
export interface BlockSums {
  /** Tokens behind `squares`, and behind `moments`. */
  readonly tokens: number;
  readonly momentTokens: number;
  readonly squares: Readonly<Record<InputName, Float64Array<ArrayBuffer>>>;
  /** Upper triangle of X'X `[dIn, dIn]`; empty when no sequence collected moments. Shared: an answer would copy it. */
  readonly moments: Readonly<Record<InputName, Float32Array<SharedArrayBuffer>>>;
  /** Position 0's input of q, k, v: `[sequences, hidden]`. */
  readonly first: Float32Array<ArrayBuffer>;
}

/** About what a job takes besides the weights and the stream that threads share. */
export function blockJobBytes(
  { spec, length, collect, momentSequences }: Pick<
    BlockJob,
    "spec" | "length" | "collect" | "momentSequences"
  >,
): number {
  const { hiddenSize, mlp, attention } = spec;
  const weights = Object.values(linearShapes(spec)).reduce((sum, [dOut, dIn]) => sum + dOut * dIn, 0);
  // What stands between two operators at the widest places, x' among it; scores of a query block.
  const width = 6 * hiddenSize + 5 * mlp.intermediateSize + 2 * QUERY_BLOCK * attention.heads;
  // The sums, and the outputs of one chunk: panels of a triangle.
  const squares = Object.values(inputWidths(spec)).reduce((sum, n) => sum + 1.5 * n * n, 0);
  const moments = collect && momentSequences > 0 ? squares : 0;
  return 4 * (weights + Math.max(CHUNK_TOKENS, length) * width + moments);
}

export async function runBlock(job: BlockJob, linalg: LinalgRuntime): Promise<BlockSums> {
  const { spec, length } = job, width = spec.hiddenSize;
  using x = openValues(job.x);
  const constants: Record<string, Tensor> = positionInputs(spec, length);
  for (const [name, { data, shape }] of Object.entries(job.weights)) {
    constants[name] = { data: new Float32Array(data), shape };
  }
  const sums = emptySums(job);
  const firstRows: Float32Array[] = [];
  const chunk = Math.max(1, Math.floor(CHUNK_TOKENS / length));
  const momentEnd = job.from + job.momentSequences;
  for (let from = job.from, to; from < job.to; from = to) {
    const collect: Collect = from < momentEnd ? "moments" : job.collect ? "squares" : "nothing";
    to = Math.min(from + chunk, collect === "moments" ? momentEnd : job.to);
    const tokens = (to - from) * length;
    const input: Tensor = { data: new Float32Array(tokens * width), shape: [tokens, width] };
    x.read(from * length * width, input.data);
    const outputs = graphOutputs(spec, to - from, tokens, collect);
    const weights = Object.fromEntries(Object.entries(job.weights).map(([name, w]) => [name, w.shape]));
    await linalg.run(
      `block ${to - from} x ${length} ${collect}`,
      () => blockGraph({ spec, weights, sequences: to - from, length, collect }),
      { x: input, ...constants },
      outputs,
    );
    if (job.write) x.write(from * length * width, outputs.y.data);
    if (collect === "nothing") continue;
    sums.tokens += tokens;
    if (collect === "moments") sums.momentTokens += tokens;
    firstRows.push(outputs["attn.first"].data);
    for (const name of INPUT_NAMES) {
      add(sums.squares[name], outputs[`${name}.squares`].data);
      if (collect === "moments") addMoments(name, sums.moments[name], outputs);
    }
  }
  return { ...sums, first: concat(firstRows) };
}

function emptySums({ spec, momentSequences }: BlockJob) {
  const widths = inputWidths(spec);
  const each = <T>(make: (n: number) => T) =>
    Object.fromEntries(INPUT_NAMES.map((name) => [name, make(widths[name])])) as Record<InputName, T>;
  return {
    tokens: 0,
    momentTokens: 0,
    squares: each((n) => new Float64Array(n)),
    moments: each((n) => shared(momentSequences > 0 ? n * n : 0)),
  };
}

function graphOutputs(
  spec: ModelSpec,
  sequences: number,
  tokens: number,
  collect: Collect,
): Record<string, Tensor> {
  const tensor = (...shape: number[]): Tensor => ({
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    shape,
  });
  const outputs: Record<string, Tensor> = { y: tensor(tokens, spec.hiddenSize) };
  if (collect === "nothing") return outputs;
  outputs["attn.first"] = tensor(sequences, spec.hiddenSize);
  for (const [name, n] of Object.entries(inputWidths(spec))) {
    outputs[`${name}.squares`] = tensor(n);
    if (collect !== "moments") continue;
    for (const { from, to, output } of momentPanels(name as InputName, n)) {
      outputs[output] = tensor(to - from, n - from);
    }
  }
  return outputs;
}

/** A decoder's causal (and windowed) mask, and the rotations of every position. */
function positionInputs(spec: ModelSpec, length: number): Record<string, Tensor> {
  const { window, rope, causal } = spec.attention;
  const mask = new Float32Array(length * length);
  for (let i = 0; i < length; i++) {
    for (let j = 0; j < length; j++) {
      if (j > i || (window !== null && i - j >= window)) mask[i * length + j] = -1e9;
    }
  }
  const inputs: Record<string, Tensor> = causal ? { mask: { data: mask, shape: [length, length] } } : {};
  if (rope) {
    const half = rope.dims / 2, shape = [length, 1, half];
    const table = (f: (angle: number) => number) =>
      Float32Array.from(
        { length: length * half },
        (_, at) => rope.attentionFactor * f(Math.floor(at / half) * rope.inverseFrequencies[at % half]),
      );
    inputs.cos = { data: table(Math.cos), shape };
    inputs.sin = { data: table(Math.sin), shape };
  }
  return inputs;
}

function add(sum: Float64Array | Float32Array, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) sum[i] += values[i];
}

/** Adds the panels' rows to the upper triangle (and the square on it) of `H`. */
function addMoments(name: InputName, H: Float32Array, outputs: Readonly<Record<string, Tensor>>): void {
  const n = Math.sqrt(H.length);
  for (const { from, to, output } of momentPanels(name, n)) {
    const panel = outputs[output].data, width = n - from;
    for (let i = from; i < to; i++) {
      add(H.subarray(i * n + from, (i + 1) * n), panel.subarray((i - from) * width, (i - from + 1) * width));
    }
  }
}

function concat(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}
