/** What the portions of a job's sequences add up to. */
import type { Tensor } from "../linalg/runtime.ts";
import { expertOf, type InputName, inputNames } from "../../models/spec.ts";
import { shared } from "../statistics.ts";
import { type ByInput, byInput } from "./block_graph.ts";
import type { BlockJob } from "./block_job.ts";
import { EXPERT_TOKENS } from "./experts_graph.ts";
import type { MomentCodes } from "./moment_codes.ts";
import { addMoments } from "./moments.ts";

/** Sums over a job's sequences. */
export interface BlockSums {
  /** Tokens behind `squares`, and behind `moments`: of an expert's inputs those that chose it. */
  readonly tokens: ByInput<number>;
  readonly momentTokens: ByInput<number>;
  readonly squares: Readonly<Record<InputName, Float64Array<ArrayBuffer>>>;
  /** Upper triangle of X'X `[dIn, dIn]`; empty when no sequence collected moments. Shared: an answer would copy it. */
  readonly moments: Readonly<Record<InputName, Float32Array<SharedArrayBuffer>>>;
  /** Position 0's input of q, k, v: `[sequences, hidden]`. */
  readonly first: Float32Array<ArrayBuffer>;
}

interface Portion {
  readonly collect: "squares" | "moments";
  readonly sequences: number;
  /** When the panels of moments are of codes. */
  readonly codes: MomentCodes | null;
}

/** Adds up what graphs answer. */
export class SumCollector {
  readonly #tokens: Record<InputName, number>;
  readonly #momentTokens: Record<InputName, number>;
  readonly #names: readonly InputName[];
  readonly #length: number;
  readonly #squares: ByInput<Float64Array<ArrayBuffer>>;
  /** Of position 0. */
  readonly #firstSquares: ByInput<Float64Array>;
  readonly #moments: ByInput<Float32Array<SharedArrayBuffer>>;
  readonly #first: Float32Array[] = [];

  constructor({ spec, length, momentSequences }: Pick<BlockJob, "spec" | "length" | "momentSequences">) {
    this.#length = length;
    this.#tokens = byInput(spec, () => 0);
    this.#momentTokens = byInput(spec, () => 0);
    this.#names = inputNames(spec);
    this.#squares = byInput(spec, (n) => new Float64Array(n));
    this.#firstSquares = byInput(spec, (n) => new Float64Array(n));
    this.#moments = byInput(spec, (n) => shared(momentSequences > 0 ? n * n : 0));
  }

  add(outputs: Readonly<Record<string, Tensor>>, { collect, sequences, codes }: Portion): void {
    this.#first.push(outputs["attn.first"].data);
    for (const name of this.#names) {
      const H = this.#moments[name], expert = expertOf(name);
      const tokens = expert === null ? sequences * this.#length : outputs[EXPERT_TOKENS].data[expert];
      this.#tokens[name] += tokens;
      if (collect === "moments") this.#momentTokens[name] += tokens;
      if (expert === null) addSquares(this.#firstSquares[name], outputs[`${name}.first`].data);
      if (collect === "squares") add(this.#squares[name], outputs[`${name}.squares`].data);
      else if (codes && expert === null) codes.add(name, H, outputs);
      else addMoments(name, H, outputs, null);
    }
  }

  /** Root mean squares of the columns so far, without position 0. */
  columnSizes(): ByInput<Float64Array> {
    return mapInputs(this.#allSquares(), (all, name) => {
      const tokens = this.#tokens[name], rest = Math.max(1, tokens - tokens / this.#length);
      const first = this.#firstSquares[name];
      return all.map((sum, j) => Math.sqrt(Math.max(0, sum - first[j]) / rest));
    });
  }

  result(): BlockSums {
    return {
      tokens: this.#tokens,
      momentTokens: this.#momentTokens,
      squares: this.#allSquares(),
      moments: this.#moments,
      first: concat(this.#first),
    };
  }

  /** A moment's diagonal has the squares of its tokens, which are in no other sum. */
  #allSquares(): ByInput<Float64Array<ArrayBuffer>> {
    return mapInputs(this.#squares, (squares, name) => {
      const H = this.#moments[name], n = squares.length;
      return H.length === 0 ? squares : squares.map((sum, j) => sum + H[j * n + j]);
    });
  }
}

function mapInputs<A, B>(values: ByInput<A>, map: (value: A, name: InputName) => B): Record<InputName, B> {
  const entries = Object.entries(values) as [InputName, A][];
  return Object.fromEntries(entries.map(([name, value]) => [name, map(value, name)])) as Record<InputName, B>;
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
