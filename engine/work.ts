/** One request inside the leader: turns output rows into events. */
import { MaskMailbox } from "./grammar/mask_mailbox.ts";
import type { LogitsRow } from "./sampler.ts";
import { logprobOf, logprobs, Sampler } from "./sampler.ts";
import { PromptLookup } from "./prompt_lookup.ts";
import { Sequence } from "./sequence.ts";
import type { TokenLogprobs } from "./types.ts";
import type { WorkEvent, WorkKind, WorkRequest } from "./worker_messages.ts";

/**
 * The others of the batch wait for a sequence's mask for so long, then go on without it. Masks are made while the next step
 * runs, so that those of larger models never come later.
 */
const MASK_PATIENCE_MS = 1;

const GRAMMAR_FAILED =
  "The grammar's thread ended, or takes seconds for one token: make the schema's patterns simpler";

/** State of one request; `output()` is called for every output row, in order of position. */
export class Work {
  readonly sequence: Sequence;
  readonly #sampler: Sampler;
  readonly #stop: Set<number>;
  readonly #masks: MaskMailbox | null;
  readonly #values: Float32Array | null;
  readonly #promptLogprobs: (TokenLogprobs | null)[] | null;
  /** Logits that wait for a mask. */
  #postponed: { readonly position: number; readonly logits: Float32Array } | null = null;
  readonly #added = performance.now();
  #started = 0;
  #firstToken = 0;
  #produced = 0;

  constructor(
    readonly id: number,
    readonly kind: WorkKind,
    readonly request: WorkRequest,
    vocab: number,
    readonly contextLength: number,
    speculation: boolean,
  ) {
    const { promptIds, measure } = request;
    const n = promptIds.length;
    const end = Math.min(contextLength, n + request.maxTokens);
    const lookup = speculation && kind === "generate" ? new PromptLookup(end) : null;
    const rows = promptIds.slice(0, measure?.rows);
    const outputs = request.promptLogprobs === true ? "all" : "last";
    this.sequence = new Sequence(id, rows, outputs, lookup, request.adapter);
    if (measure) this.sequence.needed = measure.from;
    this.#sampler = new Sampler(request.sampling, request.promptIds);
    this.#stop = new Set(request.stopIds);
    this.#masks = request.masks ? new MaskMailbox(request.masks) : null;
    this.#values = measure
      ? new Float32Array((measure.rows - measure.from) * (kind === "score" ? 1 : vocab))
      : null;
    this.#promptLogprobs = request.promptLogprobs ? new Array(n).fill(null) : null;
  }

  /** The scheduler gave the sequence its first row. */
  start(): void {
    if (this.#started === 0) this.#started = performance.now();
  }

  /** How long it has waited for its first step; 0 once that has begun. */
  waitedMs(now: number): number {
    return this.#started === 0 ? now - this.#added : 0;
  }

  /**
   * Takes the logits after `position`.
   * @returns true when the request has ended (its last events are in `events`)
   */
  output(position: number, row: LogitsRow, events: WorkEvent[]): boolean {
    this.sequence.needed = position + 1;
    return this.kind === "generate"
      ? this.#generate(position, row, events)
      : this.#measure(position, row, events);
  }

  /** It waits for its grammar: its sequence has no row to compute until `resume()`. */
  get late(): boolean {
    return this.#postponed !== null;
  }
  /**
   * Goes on with the logits that wait, in the row given, when their mask comes within `waitMs`.
   * @returns true when the request has ended
   */
  resume(row: LogitsRow, waitMs: number, events: WorkEvent[]): boolean {
    if (!this.#postponed || this.#masks!.next(waitMs) === "late") return false;
    const { position, logits } = this.#postponed;
    this.#postponed = null;
    row.floats.set(logits, row.address / 4);
    return this.output(position, row, events);
  }
  #postpone(position: number, { floats, address, vocab }: LogitsRow): false {
    this.#postponed = { position, logits: floats.slice(address / 4, address / 4 + vocab) };
    return false;
  }

  #measure(position: number, row: LogitsRow, events: WorkEvent[]): boolean {
    const { tokens } = this.sequence;
    const last = position === tokens.length - 1;
    const values = this.#values!, { promptIds, measure } = this.request;
    const index = position - measure!.from;
    if (this.kind === "score") values[index] = -logprobOf(row, promptIds[position + 1]);
    else {
      const from = row.address / 4;
      values.set(row.floats.subarray(from, from + row.vocab), index * row.vocab);
    }
    if (last) events.push({ id: this.id, values });
    return last;
  }

  #generate(position: number, row: LogitsRow, events: WorkEvent[]): boolean {
    const { sequence: s, request } = this;
    if (position < s.tokens.length - 1) {
      // A prompt row (echo).
      this.#promptLogprobs![position + 1] = logprobs(row, request.logprobs ?? 0).of(s.tokens[position + 1]);
      return false;
    }
    if (this.#firstToken === 0) {
      this.#firstToken = performance.now();
      events.push({
        id: this.id,
        event: {
          type: "prompt",
          promptTokens: s.promptLength,
          cachedTokens: s.cached,
          logprobs: this.#promptLogprobs,
        },
      });
      if (request.maxTokens === 0) return this.#end("length", events);
    }
    const mask = this.#masks?.next(MASK_PATIENCE_MS) ?? null;
    if (mask === "late") return this.#postpone(position, row);
    if (mask === "ended") return this.#end("stop", events);
    if (mask === "failed") return this.#fail(GRAMMAR_FAILED, events);
    const report = request.logprobs === null ? null : logprobs(row, request.logprobs);
    const token = this.#sampler.sample(row, mask);
    if (this.#stop.has(token)) return this.#end("stop", events);
    this.#masks?.accept(token);
    this.#produced++;
    s.tokens.push(token);
    events.push({ id: this.id, event: { type: "token", token, logprobs: report?.of(token) ?? null } });
    const full = s.tokens.length >= this.contextLength;
    return this.#produced >= request.maxTokens || full ? this.#end("length", events) : false;
  }

  #fail(message: string, events: WorkEvent[]): true {
    events.push({ id: this.id, error: { code: "unavailable", message } });
    return true;
  }

  #end(reason: "stop" | "length", events: WorkEvent[]): true {
    const now = performance.now();
    events.push({
      id: this.id,
      event: {
        type: "end",
        reason,
        timings: {
          queueMs: this.#started - this.#added,
          prefillMs: this.#firstToken - this.#started,
          decodeMs: now - this.#firstToken,
          promptTokens: this.sequence.promptLength,
          completionTokens: this.#produced,
        },
      },
    });
    return true;
  }
}
