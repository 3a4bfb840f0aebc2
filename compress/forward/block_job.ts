/** Worker side of the calibration forward: one block over a range of sequences, statistics reduced on the spot. */
import type { InputTensor, LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import { type InputName, linearShapes, type ModelSpec } from "../../models/spec.ts";
import { shared } from "../statistics.ts";
import { openValues, type Place } from "../work_space.ts";
import { blockGraph, type Collect, INPUT_NAMES, inputWidths, QUERY_BLOCK } from "./block_graph.ts";
import { positionInputs, weightInputs } from "./block_inputs.ts";
import { hasExactInt8 } from "./int8_linear.ts";
import type { Products } from "../../models/recipe.ts";
import { addMoments, addRows, codeFactorRows, codeFactors, codeScales, momentPanels } from "./moments.ts";

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
  /** Of the linear layers and the moments. int8 only where the machine's are exact. */
  readonly products: Products;
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
  const runner = new ChunkRunner(job, linalg);
  const chunk = Math.max(1, Math.floor(CHUNK_TOKENS / job.length)),
    momentEnd = job.from + job.momentSequences;
  // The first sequence goes in f32 and shows how the codes of the others are to be scaled.
  const exactUntil = job.products === "int8" && await exactInt8(linalg) ? job.from + 1 : job.to;
  for (let from = job.from, to; from < job.to; from = to) {
    const collect: Collect = from < momentEnd ? "moments" : job.collect ? "squares" : "nothing";
    to = Math.min(from + chunk, collect === "moments" ? momentEnd : job.to);
    if (from < exactUntil) to = Math.min(to, exactUntil);
    await runner.run(from, to, collect);
    if (to === exactUntil && to < job.to) runner.useCodes();
  }
  return runner.sums();
}

/** Found out once by each runtime. */
const exact = new WeakMap<LinalgRuntime, Promise<boolean>>();
function exactInt8(linalg: LinalgRuntime): Promise<boolean> {
  if (!exact.has(linalg)) exact.set(linalg, hasExactInt8(linalg));
  return exact.get(linalg)!;
}

type ByInput<T> = Readonly<Record<InputName, T>>;

/** Runs a job's sequences through the block, a few at a time, and sums what they show. */
class ChunkRunner {
  readonly #positions: Record<string, Tensor>;
  #constants: Record<string, InputTensor>;
  readonly #sums: ReturnType<typeof emptySums>;
  readonly #first: Float32Array[] = [];
  #codes: MomentCodes | null = null;

  constructor(readonly job: BlockJob, readonly linalg: LinalgRuntime) {
    this.#positions = positionInputs(job.spec, job.length);
    this.#constants = weightInputs(job.weights, null);
    this.#sums = emptySums(job);
  }

  /** Goes on in int8, scaled by the columns' root mean squares so far, without position 0. */
  useCodes(): void {
    const { job } = this, { tokens } = this.#sums, rest = Math.max(1, tokens - tokens / job.length);
    const sizes = byInput(job.spec, (n, name) => {
      const H = this.#sums.moments[name], squares = this.#sums.squares[name];
      const sum = (j: number) =>
        squares[j] + (H.length > 0 ? H[j * n + j] : 0) - this.#sums.firstSquares[name][j];
      return Float64Array.from({ length: n }, (_, j) => Math.sqrt(Math.max(0, sum(j)) / rest));
    });
    this.#constants = {}; // given back before the next ones are made
    this.#constants = weightInputs(job.weights, sizes);
    this.#codes = new MomentCodes(job, sizes);
  }

  /** Sequences from..to-1. */
  async run(from: number, to: number, collect: Collect): Promise<void> {
    const { spec, length, write, x } = this.job, sums = this.#sums;
    const outputs = await this.#outputs(from, to, collect);
    if (write) {
      using values = openValues(x);
      values.write(from * length * spec.hiddenSize, outputs.y.data);
    }
    if (collect === "nothing") return;
    sums.tokens += (to - from) * length;
    if (collect === "moments") sums.momentTokens += (to - from) * length;
    this.#first.push(outputs["attn.first"].data);
    for (const name of INPUT_NAMES) {
      addSquares(sums.firstSquares[name], outputs[`${name}.first`].data);
      if (collect === "squares") add(sums.squares[name], outputs[`${name}.squares`].data);
      else if (this.#codes) this.#codes.add(name, sums.moments[name], outputs);
      else addMoments(name, sums.moments[name], outputs, null);
    }
  }

  sums(): BlockSums {
    const { squares, moments, tokens, momentTokens } = this.#sums;
    for (const name of INPUT_NAMES) {
      const H = moments[name], n = squares[name].length;
      if (H.length === 0) continue;
      for (let j = 0; j < n; j++) squares[name][j] += H[j * n + j]; // H's tokens have been in no other sum
    }
    return { tokens, momentTokens, squares, moments, first: concat(this.#first) };
  }

  async #outputs(from: number, to: number, collect: Collect): Promise<Record<string, Tensor>> {
    const { job } = this, { spec, length } = job, sequences = to - from;
    const products = this.#codes ? "int8" : "f32";
    const input = tensor(sequences * length, spec.hiddenSize);
    using x = openValues(job.x);
    x.read(from * length * spec.hiddenSize, input.data);
    const outputs = graphOutputs(spec, sequences, sequences * length, collect);
    const weights = Object.fromEntries(Object.entries(job.weights).map(([name, w]) => [name, w.shape]));
    await this.linalg.run(
      `block ${sequences} x ${length} ${collect} ${products}`,
      () => blockGraph({ spec, weights, sequences, length, collect, products }),
      {
        x: input,
        ...this.#positions,
        ...this.#constants,
        ...collect === "moments" && this.#codes ? this.#codes.inputs() : {},
      },
      outputs,
    );
    return outputs;
  }
}

/** Moments that are summed in codes. */
class MomentCodes {
  readonly #scales: ByInput<Float64Array>;
  #inputs: Record<string, Tensor> | null = null;

  constructor(readonly job: BlockJob, sizes: ByInput<Float64Array>) {
    this.#scales = byInput(job.spec, (_, name) => codeScales(sizes[name]));
  }

  /** What the graph takes to make codes. */
  inputs(): Record<string, Tensor> {
    const { length, spec } = this.job;
    return this.#inputs ??= Object.fromEntries(
      Object.entries(inputWidths(spec)).map(([name, dIn]) => [codeFactors(name as InputName), {
        data: codeFactorRows(this.#scales[name as InputName], length),
        shape: [length, dIn],
      }]),
    );
  }

  add(name: InputName, H: Float32Array, outputs: Readonly<Record<string, Tensor>>): void {
    addMoments(name, H, outputs, this.#scales[name]);
    addRows(H, outputs[`${name}.first`].data);
  }
}

function emptySums({ spec, momentSequences }: BlockJob) {
  return {
    tokens: 0,
    momentTokens: 0,
    squares: byInput(spec, (n) => new Float64Array(n)),
    firstSquares: byInput(spec, (n) => new Float64Array(n)),
    moments: byInput(spec, (n) => shared(momentSequences > 0 ? n * n : 0)),
  };
}

function byInput<T>(spec: ModelSpec, make: (dIn: number, name: InputName) => T): Record<InputName, T> {
  const widths = inputWidths(spec);
  return Object.fromEntries(INPUT_NAMES.map((name) => [name, make(widths[name], name)])) as Record<
    InputName,
    T
  >;
}

function tensor(...shape: number[]): Tensor {
  return { data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape };
}

function graphOutputs(
  spec: ModelSpec,
  sequences: number,
  tokens: number,
  collect: Collect,
): Record<string, Tensor> {
  const outputs: Record<string, Tensor> = { y: tensor(tokens, spec.hiddenSize) };
  if (collect === "nothing") return outputs;
  for (const [name, n] of Object.entries(inputWidths(spec))) {
    outputs[`${name}.first`] = tensor(sequences, n);
    if (collect === "squares") outputs[`${name}.squares`] = tensor(n);
    else {
      for (const { from, to, output } of momentPanels(name as InputName, n)) {
        outputs[output] = tensor(to - from, n - from);
      }
    }
  }
  return outputs;
}

function add(sum: Float64Array | Float32Array, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) sum[i] += values[i];
}

/** Adds the squares of rows, as many wide as `sum`. */
function addSquares(sum: Float64Array, rows: Float32Array): void {
  for (let i = 0; i < rows.length; i++) sum[i % sum.length] += rows[i] ** 2;
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
