/** The only file that knows hdr-histogram-js: latencies in bounded memory, each within 0.1 % of what it was. */
import { build, type Histogram } from "hdr-histogram-js";

/** Milliseconds. */
export interface LatencyStats {
  readonly count: number;
  readonly mean: number;
  readonly stddev: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly p99_9: number;
  readonly max: number;
}

/** Microseconds are counted, up to an hour: what is longer counts as one. */
const MOST_US = 3_600_000_000;
const US_PER_MS = 1000;
/** Of a curve: closer where the tail is. */
const CURVE = [
  ...Array.from({ length: 50 }, (_, i) => 2 * i),
  ...[99, 99.25, 99.5, 99.75, 99.9, 99.95, 99.99, 99.999, 100],
];

export class LatencyHistogram {
  readonly #histogram: Histogram;

  /** @param digits that are kept: 3 need 95 kB, 2 need 14 kB */
  constructor(digits: 2 | 3 = 3) {
    this.#histogram = build({
      bitBucketSize: 32,
      lowestDiscernibleValue: 1,
      highestTrackableValue: MOST_US,
      numberOfSignificantValueDigits: digits,
    });
  }
  get count(): number {
    return this.#histogram.totalCount;
  }
  record(ms: number): void {
    this.#histogram.recordValue(Math.max(0, Math.min(MOST_US, Math.round(ms * US_PER_MS))));
  }
  add(other: LatencyHistogram): void {
    this.#histogram.add(other.#histogram);
  }
  /** Milliseconds. @param percent from 0 to 100 */
  percentile(percent: number): number {
    const h = this.#histogram;
    return Math.min(h.getValueAtPercentile(percent), h.maxValue) / US_PER_MS; // not the bucket's upper end
  }
  /** Null without a value. */
  stats(): LatencyStats | null {
    const h = this.#histogram;
    if (h.totalCount === 0) return null;
    const percentiles = { p50: 50, p90: 90, p95: 95, p99: 99, p99_9: 99.9 } as const;
    return {
      count: h.totalCount,
      mean: rounded(h.mean / US_PER_MS),
      stddev: rounded(h.stdDeviation / US_PER_MS),
      min: this.percentile(0),
      ...Object.fromEntries(Object.entries(percentiles).map(([k, p]) => [k, this.percentile(p)])) as Record<
        keyof typeof percentiles,
        number
      >,
      max: h.maxValue / US_PER_MS,
    };
  }
  /** The cumulative distribution: percent and milliseconds, both rising. */
  curve(): (readonly [percent: number, ms: number])[] {
    return this.count === 0 ? [] : CURVE.map((p) => [p, this.percentile(p)] as const);
  }
}

const rounded = (ms: number): number => Math.round(ms * US_PER_MS) / US_PER_MS;
