/**
 * Hidden states between two blocks, kept from time to time: copies of 240 MB for SmolLM2's default recipe, which a
 * resumed run reads back instead of passing all blocks again. How often, their own cost says: it stays below a share of
 * the time. What is read back is what was written, bit by bit, so it does not matter to the result how often it was.
 */
import { OatmillError } from "../../errors.ts";
import type { Residuals } from "../compression_context.ts";
import type { Residual } from "../forward/dense_forward.ts";
import { openValues, PIECE, type Place } from "../work_space.ts";
import { shared } from "../statistics.ts";
import type { Journal } from "./journal.ts";

/** Of the time that blocks take. */
const COST_SHARE = 0.005;
/** Bytes a second that a disk writes, as long as no copy was timed. */
const DISK_RATE = 250e6;

/** `length` values of a place, from its first one on. */
export interface StreamPart {
  readonly values: Place;
  readonly length: number;
}
export type StreamParts = Readonly<Record<string, StreamPart>>;

/** @param width of a hidden state */
export function streamParts({ calibration, heldOut }: Residuals, width: number): StreamParts {
  const part = ({ values, sequences, length }: Residual) => ({ values, length: sequences * length * width });
  return { calibration: part(calibration), heldOut: part(heldOut) };
}

interface Saved<Rest> {
  /** The block that comes next. */
  readonly position: number;
  /** Copies alternate: the last whole one stays until the next one is. */
  readonly generation: 0 | 1;
  readonly lengths: Readonly<Record<string, number>>;
  readonly rest: Rest;
}

/** A copy that counts from `commit()` on. */
export interface PendingStream {
  readonly position: number;
  commit(): Promise<void>;
}

export interface StreamOptions {
  readonly journal: Journal;
  /** Of the unit. */
  readonly name: string;
  /** Most of the time that copies may take: Infinity copies whenever it is offered. */
  readonly costShare?: number;
}

/** @typeParam Rest what else the block that comes next needs to know */
export class SavedStreams<Rest> {
  #generation: 0 | 1 = 1;
  #costMs: number | null = null;
  #lastMs = performance.now();

  constructor(readonly options: StreamOptions) {}

  /** The block that the last copy is for; 0 when there is none. */
  position(): number {
    return this.#saved()?.position ?? 0;
  }

  /** Puts the last copy where it came from; null, and nothing is changed, when there is none. */
  restore(parts: StreamParts): { readonly position: number; readonly rest: Rest } | null {
    const saved = this.#saved();
    if (!saved) return null;
    this.#generation = saved.generation;
    for (const [part, { values }] of Object.entries(parts)) {
      copy(this.#place(part), values, saved.lengths[part]);
    }
    this.#lastMs = performance.now();
    return { position: saved.position, rest: saved.rest };
  }

  /** Copies the parts when it is time to: null when it is not. @throws {OatmillError} storage_failed */
  save(position: number, parts: StreamParts, rest: Rest): PendingStream | null {
    const { journal, name } = this.options;
    if (!journal.keeps || !this.#due(parts)) return null;
    const start = performance.now(), generation = this.#generation === 0 ? 1 : 0;
    this.#generation = generation;
    for (const [part, { values, length }] of Object.entries(parts)) copy(values, this.#place(part), length);
    const copiedMs = performance.now() - start;
    const lengths = Object.fromEntries(Object.entries(parts).map(([part, { length }]) => [part, length]));
    const commit = async () => {
      const syncing = performance.now();
      await journal.put(name, { position, generation, lengths, rest } satisfies Saved<Rest>);
      this.#lastMs = performance.now();
      this.#costMs = copiedMs + this.#lastMs - syncing;
    };
    return { position, commit };
  }

  #due(parts: StreamParts): boolean {
    const bytes = 4 * Object.values(parts).reduce((sum, { length }) => sum + length, 0);
    const costMs = this.#costMs ?? bytes / DISK_RATE * 1000;
    return (performance.now() - this.#lastMs) * (this.options.costShare ?? COST_SHARE) >= costMs;
  }

  #place(part: string, generation = this.#generation): Place & string {
    return this.options.journal.place(`${this.options.name}.${generation}.${part}`);
  }

  /** The last copy, when its files are there. */
  #saved(): Saved<Rest> | null {
    const saved = this.options.journal.get<Saved<Rest>>(this.options.name);
    const isWhole = saved &&
      Object.entries(saved.lengths).every(([part, length]) =>
        length === 0 || sizeOf(this.#place(part, saved.generation)) >= 4 * length
      );
    return isWhole ? saved : null;
  }
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw new OatmillError("storage_failed", `Cannot read "${path}": ${(error as Error).message}`);
  }
}

function copy(from: Place, to: Place, length: number): void {
  using source = openValues(from);
  using target = openValues(to);
  const piece = shared(Math.min(PIECE, length));
  for (let at = 0; at < length; at += PIECE) {
    const values = piece.subarray(0, Math.min(PIECE, length - at));
    source.read(at, values);
    target.write(at, values);
  }
}
