/**
 * When the requests of an open loop are meant to be sent: a renewal process of mean gap 1, whose time is stretched by the
 * rate. Pure: the same options and seed give the same times.
 */
import { type Random, seededRandom } from "../../compress/random.ts";

export const ARRIVALS = ["poisson", "constant", "burst", "ramp"] as const;
export type ArrivalKind = typeof ARRIVALS[number];

export interface ArrivalOptions {
  readonly kind: ArrivalKind;
  /** Requests per second; of a ramp, at its end. */
  readonly rate: number;
  /** Burst: shape of the gamma distributed gaps, as vLLM's `--burstiness`: their variance is 1 / burstiness, 1 is Poisson. */
  readonly burstiness: number;
  /** Ramp: requests per second at its start, and how long it takes; then the rate stays. */
  readonly ramp: { readonly from: number; readonly seconds: number };
}

/** Gaps of mean 1. */
const GAPS: Record<ArrivalKind, (random: Random, options: ArrivalOptions) => number> = {
  poisson: (random) => exponential(random),
  constant: () => 1,
  burst: (random, { burstiness }) => gamma(burstiness, random) / burstiness,
  ramp: (random) => exponential(random),
};

/** @returns milliseconds from the start, without end; only constant arrivals begin at 0 */
export function* arrivalTimes(options: ArrivalOptions, seed: number): Generator<number, never, void> {
  const random = seededRandom(seed), gap = GAPS[options.kind];
  let events = options.kind === "constant" ? 0 : gap(random, options);
  for (;; events += gap(random, options)) yield 1000 * secondsUntil(events, options);
}

/** When so many requests are expected to have come: the inverse of the rate's integral. */
function secondsUntil(events: number, { kind, rate, ramp }: ArrivalOptions): number {
  if (kind !== "ramp") return events / rate;
  const inRamp = (ramp.from + rate) / 2 * ramp.seconds;
  if (events > inRamp) return ramp.seconds + (events - inRamp) / rate;
  // events = from t + slope t^2 / 2, solved for t in the form that also holds for a slope of 0.
  const slope = (rate - ramp.from) / ramp.seconds;
  return 2 * events / (ramp.from + Math.sqrt(ramp.from ** 2 + 2 * slope * events));
}

const exponential = (random: Random): number => -Math.log(1 - random.next());

/** Of that shape, scale 1: Marsaglia and Tsang (2000); below 1 by their power of a uniform number. */
function gamma(shape: number, random: Random): number {
  if (shape < 1) return gamma(shape + 1, random) * (1 - random.next()) ** (1 / shape);
  const d = shape - 1 / 3, c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = random.normal(), v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random.next()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}
