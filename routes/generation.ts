/**
 * One request's generations (its prompts x n choices) run at once, measured by a {@linkcode Meter}.
 */
import type { z } from "@hono/zod-openapi";
import { generateText, type TextEvent, type TextRequest } from "../engine/text.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { errorTypeOf, logUnexpected } from "./errors.ts";
import { Meter } from "./meter.ts";
import type { Lease } from "./registry.ts";
import type { timingsSchema, usageSchema } from "./sampling.ts";

export interface Choice extends TextRequest {
  /** The prompt it belongs to: choices of one prompt count its tokens once. */
  readonly promptIndex: number;
}
export interface ChoiceEvent {
  readonly index: number;
  readonly event: TextEvent;
}

export class Generation {
  readonly #lease: Lease;
  readonly #abort = new AbortController();
  readonly #meter: Meter;
  readonly #events: AsyncGenerator<ChoiceEvent, void, void>;
  #over = false;
  #left = false;

  constructor(
    readonly operation: "text_completion" | "chat",
    readonly choices: readonly Choice[],
    options: { lease: Lease; telemetry: Telemetry; request: Request },
  ) {
    const { lease, telemetry, request } = options;
    this.#lease = lease;
    this.#meter = new Meter(telemetry, { operation, model: lease.id, request });
    request.signal.addEventListener("abort", () => this.leave(), { once: true });
    this.#events = this.#run();
  }

  /** @throws {OatmillError} whatever a choice throws; all others are stopped then */
  events(): AsyncGenerator<ChoiceEvent, void, void> {
    return this.#events;
  }
  async *#run(): AsyncGenerator<ChoiceEvent, void, void> {
    const { engine, tokenizer } = this.#lease.model;
    const runs = this.choices.map((c) => generateText(engine, tokenizer, c, this.#abort.signal));
    let error: unknown = null;
    try {
      for await (const { index, event } of merge(runs)) {
        this.#meter.see(this.choices[index], event);
        yield { index, event };
      }
    } catch (thrown) {
      error = thrown;
      throw thrown;
    } finally {
      this.#over = true;
      this.#abort.abort(); // one choice failed: stop the others
      this.#lease[Symbol.dispose]();
      const left = this.#left && !this.#meter.complete(this.choices.length);
      this.#meter.end(left ? "client_left" : error === null ? null : errorTypeOf(error));
      if (!left && error !== null) logUnexpected(error, this.operation);
    }
  }

  /** The client is gone: the engine frees everything within one step. */
  leave(): void {
    if (this.#over) return;
    this.#left = true;
    this.#abort.abort();
  }
  get left(): boolean {
    return this.#left;
  }
  usage(): z.infer<typeof usageSchema> {
    return this.#meter.usage();
  }
  timings(): z.infer<typeof timingsSchema> {
    return this.#meter.timings();
  }
}

/** Events of several iterators in the order they come; leaving the loop leaves them all. */
export async function* merge<T>(
  sources: readonly AsyncGenerator<T, void, void>[],
): AsyncGenerator<{ index: number; event: T }, void, void> {
  const next = (index: number) => sources[index].next().then((result) => ({ index, result }));
  const pending = new Map(sources.map((_, i) => [i, next(i)]));
  try {
    while (pending.size > 0) {
      const { index, result } = await Promise.race(pending.values());
      if (result.done) pending.delete(index);
      else {
        pending.set(index, next(index));
        yield { index, event: result.value };
      }
    }
  } finally {
    for (const p of pending.values()) p.catch(() => {}); // one error is enough
    for (const s of sources) s.return().catch(() => {});
  }
}
