/** Mixture of experts: which rows of a step go through which expert, and how their outputs come together again. */
import { groupCount } from "../../kernels/layout.ts";
import { type BindContext, type OpOf, placeOf, type Run } from "./bound.ts";
import { bindNormalise } from "./prepare.ts";

/**
 * The rows that have a share in one expert. Every thread finds them for itself, in the shares that all of them see: the
 * lists are alike.
 */
export class Routing {
  /** Of the expert that was looked for last, rising. */
  readonly rows: number[] = [];
  /** What the expert's outputs of these rows are multiplied by. */
  readonly shares: number[] = [];

  /** @param floats view of the memory that holds scores and shares */
  constructor(private readonly floats: Float32Array) {}

  /**
   * Looks among the first `count` rows.
   * @param address of the first row's share in the expert
   * @param stride floats from row to row
   * @returns how many rows have one
   */
  find(address: number, stride: number, count: number): number {
    this.rows.length = this.shares.length = 0;
    for (let row = 0, i = address / 4; row < count; row++, i += stride) {
      const share = this.floats[i];
      if (share === 0) continue;
      this.rows.push(row);
      this.shares.push(share);
    }
    return this.rows.length;
  }

  /** Puts the shares of one row in the place of its scores, which begin at `address`. */
  choose(address: number, { count, perToken }: OpOf<"route">["experts"]): void {
    chooseExperts(this.floats.subarray(address / 4, address / 4 + count), perToken);
  }
}

/**
 * The `perToken` largest scores become their softmax, the others 0, in place: the softmax over all scores, of which the
 * largest are kept and divided by their sum (Mixtral, arXiv 2401.04088, section 2.1). Of equal scores the first is chosen.
 */
export function chooseExperts(scores: Float32Array, perToken: number): void {
  const best: number[] = [];
  for (let e = 0; e < scores.length; e++) {
    let at = best.length;
    while (at > 0 && scores[e] > scores[best[at - 1]]) at--;
    if (at === perToken) continue;
    best.splice(at, 0, e);
    if (best.length > perToken) best.pop();
  }
  const powers = best.map((e) => Math.exp(scores[e] - scores[best[0]]));
  const total = powers.reduce((sum, p) => sum + p, 0);
  scores.fill(0);
  best.forEach((e, i) => scores[e] = powers[i] / total);
}

/**
 * Threads take turns by rows. Every row is scored by itself, also where there are several: kernels for more rows add in another
 * order, and what a row chooses must not depend on its neighbours.
 */
export function bindRoute(op: OpOf<"route">, context: BindContext): Run {
  const { map, kernels, spec: { hiddenSize: cols }, thread, threads, routing } = context;
  const input = placeOf(map, op.input), out = placeOf(map, op.out), shares = placeOf(map, op.shares);
  const normalise = bindNormalise(op.norm, cols, context);
  const router = map.tensors[op.router].address, groups = groupCount(op.experts.count);
  const score = kernels.linear("f32", 1);
  return (rows) => {
    for (let row = thread; row < rows; row += threads) {
      const x = out.address + row * out.stride * 4, y = shares.address + row * shares.stride * 4;
      normalise(input.address + row * input.stride * 4, input.stride, x, out.stride, 1);
      score(router, x, 0, 0, y, shares.stride, groups, cols, 0, 0, map.consts);
      routing.choose(y, op.experts);
    }
  };
}

/**
 * @param run runs an expert's own operations over so many rows, those that `routing` has found
 */
export function bindExperts(
  op: OpOf<"experts">,
  { map, routing }: BindContext,
  run: (expert: number, rows: number) => void,
): Run {
  const { address, stride } = placeOf(map, op.shares);
  return (rows) => {
    for (let expert = 0; expert < op.each.length; expert++) {
      const chosen = routing.find(address + expert * 4, stride, rows);
      if (chosen > 0) run(expert, chosen);
    }
  };
}

/** Threads share the columns, so that whatever experts add to a row, one thread adds it, in their order. */
export function bindAddChosen(op: OpOf<"add_chosen">, context: BindContext): Run {
  const { map, kernels: { base }, thread, threads, routing } = context;
  const input = placeOf(map, op.input), out = placeOf(map, op.out);
  const vectors = Math.ceil(op.cols / 4);
  const from = Math.floor(vectors * thread / threads) * 4;
  const cols = Math.min(op.cols, Math.floor(vectors * (thread + 1) / threads) * 4) - from;
  return (rows) => {
    for (let i = 0; i < rows; i++) {
      const x = out.address + (routing.rows[i] * out.stride + from) * 4;
      base.add_scaled(x, input.address + (i * input.stride + from) * 4, routing.shares[i], cols);
    }
  };
}
