/** A job's progress: phases become metrics and spans, and of many reports few become events. */
import type { CompressProgress } from "../compress/types.ts";
import type { Span, Telemetry } from "../telemetry/telemetry.ts";

/** Events of one phase closer together than this are one. */
const EVENT_INTERVAL_MS = 250;

export class JobProgressMeter {
  #phase: string | null = null;
  #phaseStartMs = 0;
  #lastMs = 0;
  #last: CompressProgress | null = null;

  constructor(
    readonly telemetry: Telemetry,
    readonly span: Span,
    readonly report: (p: CompressProgress) => void,
  ) {}

  see(p: CompressProgress): void {
    const now = Date.now();
    const phaseBegins = p.phase !== this.#phase;
    if (phaseBegins) {
      this.end();
      [this.#phase, this.#phaseStartMs] = [p.phase, now];
    }
    this.#last = p;
    this.telemetry.set("jobProgress", p.total > 0 ? p.done / p.total : 0, { phase: p.phase });
    if (!phaseBegins && p.done < p.total && now - this.#lastMs < EVENT_INTERVAL_MS) return;
    this.#report(p, now);
  }
  #report(p: CompressProgress, now: number): void {
    this.#lastMs = now;
    this.#last = null;
    this.report(p);
  }
  /** Of the present phase. */
  end(): void {
    const now = Date.now();
    if (this.#last) this.#report(this.#last, now);
    if (this.#phase === null) return;
    const attributes = { phase: this.#phase };
    this.telemetry.record("phaseDuration", (now - this.#phaseStartMs) / 1000, attributes);
    this.telemetry.set("jobProgress", 0, attributes);
    this.telemetry.spanOf(this.#phase, this.span, { startMs: this.#phaseStartMs, endMs: now });
    this.#phase = null;
  }
}
