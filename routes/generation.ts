/**
 * One request's generations (its prompts x n choices) run at once, measured by a {@linkcode Meter}.
 */
import type { z } from "@hono/zod-openapi";
import type { OpenedModel } from "../engine/open_model.ts";
import { generateText, type TextEvent, type TextRequest } from "../engine/text.ts";
import { errorTypeOf, logUnexpected } from "./errors.ts";
import { Meter } from "./meter.ts";
import { shortVersion } from "./model_reference.ts";
import type { Lease } from "./engine_pool.ts";
import type { timingsSchema, usageSchema } from "./sampling.ts";
import type { Services } from "./services.ts";

export interface Choice extends TextRequest {
  /** The prompt it belongs to: choices of one prompt count its tokens once. */
  readonly promptIndex: number;
  /** What `echo` repeats. */
  readonly promptText: string;
}
export interface ChoiceEvent {
  readonly index: number;
  readonly event: TextEvent;
}

export interface GenerationOptions {
  readonly operation: "text_completion" | "chat";
  /** As the request names it. */
  readonly model: string;
  readonly request: Request;
  readonly services: Services;
}

export class Generation {
  readonly operation: GenerationOptions["operation"];
  readonly #lease: Lease;
  readonly #abort = new AbortController();
  readonly #meter: Meter;
  readonly #run: AsyncGenerator<ChoiceEvent, void, void>;
  readonly #first: ChoiceEvent[] = [];
  #over = false;
  #left = false;

  private constructor(readonly choices: readonly Choice[], lease: Lease, options: GenerationOptions) {
    const { operation, request, services } = options;
    this.operation = operation;
    this.#lease = lease;
    this.#meter = new Meter(services.telemetry, {
      operation,
      model: lease.id,
      version: this.fingerprint,
      adapter: lease.adapter,
      request,
    });
    request.signal.addEventListener("abort", () => this.leave(), { once: true });
    if (request.signal.aborted) this.leave(); // while the model was loaded or the prompt read
    this.#run = this.#events();
  }

  /**
   * Takes a lease of the model and starts the choices that `read` makes for it.
   * @throws {OatmillError} what the registry, `read` or the engine refuses: the answer has not begun
   */
  static async start(
    read: (model: OpenedModel, signal: AbortSignal) => Promise<readonly Choice[]>,
    options: GenerationOptions,
  ): Promise<Generation> {
    const lease = await options.services.registry.acquire(options.model);
    let generation: Generation;
    try {
      generation = new Generation(await read(lease.model, options.request.signal), lease, options);
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
    await generation.#admit();
    return generation;
  }
  /**
   * What an engine refuses (full queue) must become a status: the answer begins when every choice has. Choices may wait
   * long for a place, though. The engine hears of all before its second step: at a second token it has refused what it
   * refuses.
   */
  async #admit(): Promise<void> {
    const seen = this.choices.map(() => 0);
    while (seen.includes(0)) {
      const { value } = await this.#run.next();
      if (!value) return;
      this.#first.push(value);
      if (++seen[value.index] === 3 && value.event.type === "text") return; // prompt, token, token
    }
  }

  /** The version that answers. */
  get fingerprint(): string {
    return shortVersion(this.#lease.version);
  }
  get model(): OpenedModel {
    return this.#lease.model;
  }
  /** To be read once. @throws {OatmillError} whatever a choice throws; all others are stopped then */
  async *events(): AsyncGenerator<ChoiceEvent, void, void> {
    try {
      yield* this.#first;
      yield* this.#run;
    } finally {
      await this.#run.return(); // whoever leaves at a first event leaves the others too
    }
  }
  async *#events(): AsyncGenerator<ChoiceEvent, void, void> {
    const { engine, tokenizer } = this.#lease.model;
    const runs = this.choices.map((c) => generateText(engine, tokenizer, c, this.#abort.signal));
    let error: unknown = null;
    try {
      for await (const { index, event } of merge(runs)) {
        this.#meter.see(this.choices[index], event);
        yield { index, event };
      }
    } catch (thrown) {
      error = this.#lease.closed ?? thrown;
      throw error;
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
