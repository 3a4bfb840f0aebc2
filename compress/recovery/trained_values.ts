/** Everything that stands beside the trained values while they are trained: moments, gradients, the best so far. */
import type { LinalgPool } from "../linalg/pool.ts";
import type { StreamParts } from "../resume/streams.ts";
import { shared } from "../statistics.ts";
import { type AdamWOptions, clipFactor } from "./adamw.ts";
import type { SharedFloats } from "./parameters.ts";
import { laneCount } from "./job_bytes.ts";
import { PIECE_VALUES } from "./update_job.ts";

/** Some values of a vector, and what the learning rate is multiplied by for them. */
export interface RatePart {
  readonly length: number;
  readonly rate: number;
}

interface TrainedVector {
  readonly values: SharedFloats;
  /** In their order, all of them together. */
  readonly rates: readonly RatePart[];
  readonly first: SharedFloats;
  readonly second: SharedFloats;
  readonly best: SharedFloats;
  /** Of each lane. */
  readonly gradients: readonly SharedFloats[];
}

export class TrainedValues {
  readonly #vectors: readonly TrainedVector[];
  readonly lanes: number;

  /**
   * @param vectors what is trained
   * @param batch sequences of a step
   * @param rates of each vector; default: 1 for all
   */
  constructor(vectors: readonly SharedFloats[], batch: number, rates?: readonly (readonly RatePart[])[]) {
    this.lanes = laneCount(vectors, batch);
    this.#vectors = vectors.map((values, i) => ({
      values,
      rates: rates?.[i] ?? [{ length: values.length, rate: 1 }],
      first: shared(values.length),
      second: shared(values.length),
      best: shared(values.length),
      gradients: Array.from({ length: this.lanes }, () => shared(values.length)),
    }));
  }

  /** Where a lane's gradients go: one array for each vector. */
  gradients(lane: number): SharedFloats[] {
    return this.#vectors.map(({ gradients }) => gradients[lane]);
  }

  keepBest(): void {
    for (const { values, best } of this.#vectors) best.set(values);
  }

  restoreBest(): void {
    for (const { values, best } of this.#vectors) values.set(best);
  }

  /** To the best, at rest: the way that led away from it is forgotten, the sizes of gradients are not. */
  goBack(): void {
    this.restoreBest();
    for (const { first } of this.#vectors) first.fill(0);
  }

  /** What is kept of it for another run. */
  parts(): StreamParts {
    const kept = ["values", "first", "second", "best"] as const;
    const part = (vector: TrainedVector, name: typeof kept[number], i: number) =>
      [`${name}.${i}`, { values: vector[name], length: vector[name].length }] as const;
    return Object.fromEntries(this.#vectors.flatMap((v, i) => kept.map((name) => part(v, name, i))));
  }

  /**
   * Sums the lanes, shortens their sum to `clipNorm` and takes one step.
   * @param options.gradientScale of the sum, before it is shortened
   * @returns length of the scaled gradient before it was shortened
   */
  async update(
    pool: LinalgPool,
    { clipNorm, ...options }: AdamWOptions & { readonly clipNorm: number },
  ): Promise<number> {
    const pieces = this.#vectors.flatMap(piecesOf);
    const squares = await Promise.all(
      pieces.map(({ gradients }) => pool.run<"sumGradients">({ kind: "sumGradients", lanes: gradients })),
    );
    const norm = options.gradientScale * Math.sqrt(squares.reduce((a, b) => a + b, 0));
    const factor = clipFactor(norm, clipNorm);
    if (factor === 0) return norm;
    const gradientScale = options.gradientScale * factor;
    await Promise.all(
      pieces.map(({ values, first, second, gradients: [gradients], rate }) =>
        pool.run<"updateValues">({
          kind: "updateValues",
          values,
          first,
          second,
          gradients,
          options: { ...options, rate: rate * options.rate, gradientScale },
        })
      ),
    );
    return norm;
  }
}

interface Piece extends Omit<TrainedVector, "best" | "rates"> {
  readonly rate: number;
}

/** Of one rate each. */
function piecesOf({ values, first, second, gradients, rates }: TrainedVector): Piece[] {
  const pieces: Piece[] = [];
  let from = 0;
  for (const { length, rate } of rates) {
    for (const end = from + length; from < end;) {
      const to = Math.min(end, from + PIECE_VALUES);
      const piece = (whole: SharedFloats) => whole.subarray(from, to);
      pieces.push({
        rate,
        values: piece(values),
        first: piece(first),
        second: piece(second),
        gradients: gradients.map(piece),
      });
      from = to;
    }
  }
  return pieces;
}
