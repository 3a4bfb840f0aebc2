/** A job's progress: its phase becomes a metric, and of many reports few become events. */
import type { CompressProgress } from "../compress/types.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** Events of one phase closer together than this are one. */
const EVENT_INTERVAL_MS = 250;

export class JobProgressMeter {
  #phase: string | null = null;
  #lastMs = 0;
  #last: CompressProgress | null = null;

  constructor(readonly telemetry: Telemetry, readonly report: (p: CompressProgress) => void) {}

  see(p: CompressProgress): void {
    const now = Date.now();
    const phaseBegins = p.phase !== this.#phase;
    if (phaseBegins) this.end();
    this.#phase = p.phase;
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
    if (this.#last) this.#report(this.#last, Date.now());
    if (this.#phase !== null) this.telemetry.set("jobProgress", 0, { phase: this.#phase });
    this.#phase = null;
  }
}
