/**
 * The input statistics of all blocks, for a pass that collects them and later ones that use them. H is kept as its
 * upper triangle, in memory as long as there is room and then on disk: SmolLM2's are 200 MB, Llama-2-7B's 11 GB.
 */
import type { InputName } from "../models/spec.ts";
import { type BlockStatistics, type InputStatistics, mirror, shared, toShared } from "./statistics.ts";
import { openValues, type Place, type StoredValues } from "./work_space.ts";

/** What is known of an input besides its values. */
export interface StatisticsEntry {
  readonly dIn: number;
  readonly hasMoments: boolean;
  /** d and then H's triangle, row by row: `[dIn + dIn (dIn + 1) / 2]`; `[dIn]` without H. */
  readonly place: Place;
  /** As it was put: no more than the hidden size. */
  readonly rms: InputStatistics["rms"];
}

/** By block and input. */
export type StatisticsEntries = readonly (readonly [key: string, entry: StatisticsEntry])[];

export class StatisticsStore {
  readonly #entries = new Map<string, StatisticsEntry>();

  /**
   * @param places where values go
   * @param entries of an earlier store, whose places still have their values
   */
  constructor(
    readonly places: { place(name: string, length: number): Place },
    entries: StatisticsEntries = [],
  ) {
    for (const [key, entry] of entries) this.#entries.set(key, entry);
  }

  /** What a later store needs; its places are files when those were. */
  entries(): StatisticsEntries {
    return [...this.#entries];
  }

  /** Keeps a copy. @throws {RangeError} the block has statistics already. @throws {OatmillError} storage_failed */
  put(block: number, statistics: BlockStatistics): void {
    for (const [input, found] of Object.entries(statistics)) this.#putInput(`${block}.${input}`, found);
  }

  /** What was put, H whole again. @throws {RangeError} nothing was. @throws {OatmillError} storage_failed */
  get(block: number): BlockStatistics {
    const own = [...this.#entries.keys()].filter((key) => key.startsWith(`${block}.`));
    if (own.length === 0) throw new RangeError(`No statistics of block ${block}`);
    const inputs = own.map((key) => key.slice(key.indexOf(".") + 1) as InputName)
      .map((input) => [input, this.getInput(block, input)]);
    return Object.fromEntries(inputs) as Record<InputName, InputStatistics>;
  }

  /** One of a block's inputs: H of the widest one is 485 MB in Llama-2-7B. Errors as in {@linkcode get}. */
  getInput(block: number, input: InputName): InputStatistics {
    const entry = this.#entries.get(`${block}.${input}`);
    if (!entry) throw new RangeError(`No statistics of block ${block}, input ${input}`);
    const { dIn, hasMoments, place, rms } = entry;
    const d = shared(dIn), H = hasMoments ? shared(dIn * dIn) : null;
    using source = openValues(place);
    source.read(0, d);
    if (H) readTriangle(source, H, dIn);
    return { d, ...rms && { rms }, H };
  }

  #putInput(key: string, { d, rms, H }: InputStatistics): void {
    if (this.#entries.has(key)) throw new RangeError(`Statistics of "${key}" are there already`);
    const dIn = d.length;
    const place = this.places.place(`statistics.${key}`, dIn + (H ? dIn * (dIn + 1) / 2 : 0));
    using target = openValues(place);
    target.write(0, d);
    if (H) writeTriangle(target, H, dIn);
    this.#entries.set(key, { dIn, hasMoments: H !== null, place, rms: rms && toShared(rms) });
  }
}

/** Values of the triangle that are read or written at once: 4 MiB. */
const PANEL = 1 << 20;

/** Rows of the upper triangle as panels of about {@linkcode PANEL} values, and where each begins behind d. */
function* panels(n: number): Generator<{ from: number; to: number; at: number; length: number }> {
  for (let from = 0, at = n; from < n;) {
    let to = from, length = 0;
    while (to < n && (length === 0 || length + n - to <= PANEL)) length += n - to++;
    yield { from, to, at, length };
    from = to;
    at += length;
  }
}

function writeTriangle(target: StoredValues, H: Float32Array, n: number): void {
  for (const { from, to, at, length } of panels(n)) {
    const packed = new Float32Array(length);
    for (let i = from, next = 0; i < to; next += n - i++) {
      packed.set(H.subarray(i * n + i, (i + 1) * n), next);
    }
    target.write(at, packed);
  }
}

function readTriangle(source: StoredValues, H: Float32Array, n: number): void {
  for (const { from, to, at, length } of panels(n)) {
    const packed = new Float32Array(length);
    source.read(at, packed);
    for (let i = from, next = 0; i < to; next += n - i++) {
      H.set(packed.subarray(next, next + n - i), i * n + i);
    }
  }
  mirror(H, n);
}
