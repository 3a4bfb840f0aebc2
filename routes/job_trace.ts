/**
 * A job as a trace: the job, under it each block of each pass, under that the phases that the block went through; phases that
 * belong to no block stand under the job. What the phases took together becomes a metric.
 */
import type { BlockPlace, CompressStep } from "../compress/types.ts";
import type { Attributes, Span, Telemetry } from "../telemetry/telemetry.ts";

/** Of one job: a model of 200 blocks in three passes of six phases fits; the exporter's queue holds 2,048 at once. */
const MOST_SPANS = 4096;
/** Steps of one phase with less between them are one span. */
const GAP_MS = 5;
/** The next block begins while workers end the last one: so many are open at once. */
const BLOCKS_OPEN = 2;

interface OpenBlock {
  readonly place: BlockPlace;
  readonly span: Span;
  endMs: number;
  /** Not written yet: it may go on. */
  step: CompressStep;
}

export class JobTrace {
  readonly span: Span;
  /** Oldest first. */
  #open: OpenBlock[] = [];
  #spans = 1;
  #dropped = 0;
  readonly #seconds = new Map<string, number>();

  constructor(readonly telemetry: Telemetry, attributes: Attributes) {
    this.span = telemetry.startSpan("compression", { attributes });
  }

  see(step: CompressStep): void {
    const { phase, block, startMs, endMs } = step;
    this.#seconds.set(phase, (this.#seconds.get(phase) ?? 0) + (endMs - startMs) / 1000);
    if (block) this.#seeBlock(step, block);
    else {
      this.#close(0);
      this.#write(this.span, step);
    }
  }

  #seeBlock(step: CompressStep, place: BlockPlace): void {
    const found = this.#open.find((open) => isSame(open.place, place));
    if (!found) return this.#begin(step, place);
    found.endMs = Math.max(found.endMs, step.endMs);
    const { step: last } = found;
    if (last.phase === step.phase && step.startMs - last.endMs < GAP_MS) {
      found.step = { ...last, endMs: step.endMs };
      return;
    }
    this.#write(found.span, last);
    found.step = step;
  }
  #begin(step: CompressStep, place: BlockPlace): void {
    this.#close(this.#open.at(-1)?.place.pass === place.pass ? BLOCKS_OPEN - 1 : 0);
    if (!this.#isWithin()) return;
    const span = this.telemetry.startSpan(`${place.pass} block ${place.index}`, {
      parent: this.span,
      startTimeMs: step.startMs,
      attributes: { "oatmill.pass": place.pass, "oatmill.block": place.index },
    });
    this.#open.push({ place, span, endMs: step.endMs, step });
  }
  /** All but the youngest. */
  #close(left: number): void {
    for (const { span, step, endMs } of this.#open.splice(0, this.#open.length - left)) {
      this.#write(span, step);
      span.end(endMs);
    }
  }
  #write(parent: Span, { phase, startMs, endMs }: CompressStep): void {
    if (this.#isWithin()) this.telemetry.spanOf(phase, parent, { startMs, endMs });
  }
  /** Counts a span, or the step that has none. */
  #isWithin(): boolean {
    const within = this.#spans < MOST_SPANS;
    if (within) this.#spans++;
    else this.#dropped++;
    return within;
  }

  end(): void {
    this.#close(0);
    for (const [phase, seconds] of this.#seconds) {
      this.telemetry.record("phaseDuration", seconds, { phase });
    }
    if (this.#dropped > 0) this.span.setAttribute("oatmill.steps_dropped", this.#dropped);
    this.span.end();
  }
}

const isSame = (a: BlockPlace, b: BlockPlace): boolean => a.pass === b.pass && a.index === b.index;
