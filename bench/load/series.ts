/** How a load went over time, in bounded memory: bins that double their width when there are too many. */
import type { Exchange } from "./client.ts";
import { LatencyHistogram } from "./histogram.ts";

/** One bin of time. */
export interface SeriesPoint {
  /** Its start, from the start of the measurement. */
  readonly second: number;
  readonly seconds: number;
  readonly output_tokens_per_second: number;
  /** That ended in it. */
  readonly requests_per_second: number;
  readonly errors: number;
  /** Mean over the bin. */
  readonly in_flight: number;
  /** Of the requests that ended in it. */
  readonly ttft_ms: { readonly p50: number; readonly p99: number } | null;
  readonly e2e_ms: { readonly p50: number; readonly p99: number } | null;
}

const FIRST_WIDTH_MS = 250;
const MOST_BINS = 240;

class Bin {
  tokens = 0;
  ended = 0;
  errors = 0;
  busyMs = 0;
  readonly ttft = new LatencyHistogram(2);
  readonly e2e = new LatencyHistogram(2);

  add(other: Bin): void {
    this.tokens += other.tokens;
    this.ended += other.ended;
    this.errors += other.errors;
    this.busyMs += other.busyMs;
    this.ttft.add(other.ttft);
    this.e2e.add(other.e2e);
  }
}

export class Series {
  #widthMs = FIRST_WIDTH_MS;
  #bins: Bin[] = [];
  /** @param startMs what came before is left out */
  constructor(readonly startMs: number) {}

  /** Of a request that has ended; latencies only of those that succeeded. */
  add(exchange: Exchange, latency: { readonly ttftMs: number; readonly e2eMs: number } | null): void {
    const { sentMs, endMs, firstMs, error } = exchange;
    if (error?.kind !== "cancelled") {
      const bin = this.#bin(endMs);
      if (bin) bin.ended++;
      if (bin && error) bin.errors++;
      if (latency) {
        bin?.ttft.record(latency.ttftMs);
        bin?.e2e.record(latency.e2eMs);
      }
    }
    if (firstMs !== null && exchange.chunks > 0) this.#addTokens(exchange, firstMs);
    this.#addBusy(sentMs, endMs);
  }
  #addTokens({ gapsMs, chunks, outputTokens }: Exchange, firstMs: number): void {
    const tokens = outputTokens / chunks;
    let at = firstMs;
    for (let i = 0; i < chunks; i++) {
      if (i > 0) at += gapsMs[i - 1];
      const bin = this.#bin(at);
      if (bin) bin.tokens += tokens;
    }
  }
  #addBusy(fromMs: number, toMs: number): void {
    this.#bin(toMs); // so that there are bins enough
    let from = Math.max(fromMs, this.startMs);
    while (from < toMs) {
      const index = Math.floor((from - this.startMs) / this.#widthMs);
      // The next border, or the end; a border that rounding puts at `from` itself is stepped over.
      const to = Math.min(toMs, Math.max(this.startMs + (index + 1) * this.#widthMs, from + 1e-3));
      this.#bins[Math.min(index, this.#bins.length - 1)].busyMs += to - from;
      from = to;
    }
  }

  #bin(ms: number): Bin | null {
    if (ms < this.startMs) return null;
    while (ms - this.startMs >= this.#widthMs * MOST_BINS) this.#halve();
    const index = Math.floor((ms - this.startMs) / this.#widthMs);
    while (this.#bins.length <= index) this.#bins.push(new Bin());
    return this.#bins[index];
  }
  #halve(): void {
    const pairs = this.#bins.filter((_, i) => i % 2 === 0);
    pairs.forEach((bin, i) => this.#bins[2 * i + 1] && bin.add(this.#bins[2 * i + 1]));
    this.#bins = pairs;
    this.#widthMs *= 2;
  }

  /** @param endMs the last bin ends here */
  points(endMs: number): SeriesPoint[] {
    return this.#bins.map((bin, i) => {
      const from = i * this.#widthMs, last = i === this.#bins.length - 1;
      const widthMs = last
        ? Math.min(this.#widthMs, Math.max(1, endMs - this.startMs - from))
        : this.#widthMs;
      return {
        second: from / 1000,
        seconds: widthMs / 1000,
        output_tokens_per_second: 1000 * bin.tokens / widthMs,
        requests_per_second: 1000 * bin.ended / widthMs,
        errors: bin.errors,
        in_flight: bin.busyMs / widthMs,
        ttft_ms: ends(bin.ttft),
        e2e_ms: ends(bin.e2e),
      };
    });
  }
}

const ends = (h: LatencyHistogram) => h.count === 0 ? null : { p50: h.percentile(50), p99: h.percentile(99) };
