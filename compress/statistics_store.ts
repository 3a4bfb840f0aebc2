/**
 * The input statistics of all blocks, for a pass that collects them and later ones that use them. H is kept as its
 * upper triangle, in memory as long as the budget lasts and then on disk: SmolLM2's are 200 MB, Llama-2-7B's 11 GB.
 */
import type { InputName } from "../models/spec.ts";
import { INPUT_NAMES } from "./forward/block_graph.ts";
import { type BlockStatistics, type InputStatistics, shared } from "./statistics.ts";
import { ScratchFile, type WorkFolder } from "./work_folder.ts";

/** d and H's triangle one after the other, in memory or in a file. */
interface Entry {
  readonly dIn: number;
  readonly hasMoments: boolean;
  /** `[dIn + dIn (dIn + 1) / 2]`, or `[dIn]` without H. */
  readonly kept: Float32Array | string;
}

export interface StatisticsStoreOptions {
  readonly folder: WorkFolder;
  /** Bytes kept in memory; what comes after them goes to files in `folder`. */
  readonly memoryBytes: number;
}

export class StatisticsStore {
  readonly #entries = new Map<string, Entry>();
  readonly #options: StatisticsStoreOptions;
  #memoryBytes = 0;

  constructor(options: StatisticsStoreOptions) {
    this.#options = options;
  }

  /** Bytes that are kept in memory. */
  get memoryBytes(): number {
    return this.#memoryBytes;
  }

  /** Keeps a copy. @throws {RangeError} the block has statistics already. @throws {OatmillError} storage_failed */
  put(block: number, statistics: BlockStatistics): void {
    for (const input of INPUT_NAMES) this.#putInput(`${block}.${input}`, statistics[input]);
  }

  /** What was put, H whole again. @throws {RangeError} nothing was. @throws {OatmillError} storage_failed */
  get(block: number): BlockStatistics {
    const inputs = INPUT_NAMES.map((input) => [input, this.getInput(block, input)]);
    return Object.fromEntries(inputs) as Record<InputName, InputStatistics>;
  }

  /** One of a block's four inputs: H of the widest one is 485 MB in Llama-2-7B. Errors as in {@linkcode get}. */
  getInput(block: number, input: InputName): InputStatistics {
    const entry = this.#entries.get(`${block}.${input}`);
    if (!entry) throw new RangeError(`No statistics of block ${block}, input ${input}`);
    const { dIn, hasMoments, kept } = entry;
    const d = shared(dIn), H = hasMoments ? shared(dIn * dIn) : null;
    using source = typeof kept === "string" ? ScratchFile.open(kept) : new MemoryValues(kept);
    source.read(0, d);
    if (H) readTriangle(source, H, dIn);
    return { d, H };
  }

  #putInput(key: string, { d, H }: InputStatistics): void {
    if (this.#entries.has(key)) throw new RangeError(`Statistics of "${key}" are there already`);
    const dIn = d.length, length = dIn + (H ? dIn * (dIn + 1) / 2 : 0);
    const { folder, memoryBytes } = this.#options;
    const inMemory = this.#memoryBytes + 4 * length <= memoryBytes;
    const kept = inMemory ? new Float32Array(length) : folder.file(`statistics.${key}`);
    using target = typeof kept === "string" ? ScratchFile.open(kept) : new MemoryValues(kept);
    target.write(0, d);
    if (H) writeTriangle(target, H, dIn);
    if (inMemory) this.#memoryBytes += 4 * length;
    this.#entries.set(key, { dIn, hasMoments: H !== null, kept });
  }
}

/** The part of {@linkcode ScratchFile} that a store needs, over an array. */
class MemoryValues implements Pick<ScratchFile, "read" | "write">, Disposable {
  constructor(readonly values: Float32Array) {}

  write(at: number, values: Float32Array): void {
    this.values.set(values, at);
  }

  read(at: number, out: Float32Array): void {
    out.set(this.values.subarray(at, at + out.length));
  }

  [Symbol.dispose](): void {}
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

function writeTriangle(target: Pick<ScratchFile, "write">, H: Float32Array, n: number): void {
  for (const { from, to, at, length } of panels(n)) {
    const packed = new Float32Array(length);
    for (let i = from, next = 0; i < to; next += n - i++) {
      packed.set(H.subarray(i * n + i, (i + 1) * n), next);
    }
    target.write(at, packed);
  }
}

function readTriangle(source: Pick<ScratchFile, "read">, H: Float32Array, n: number): void {
  for (const { from, to, at, length } of panels(n)) {
    const packed = new Float32Array(length);
    source.read(at, packed);
    for (let i = from, next = 0; i < to; next += n - i++) {
      H.set(packed.subarray(next, next + n - i), i * n + i);
    }
  }
  mirror(H, n);
}

/** Side of the squares that are mirrored at once: both of them stay in the first-level cache. */
const TILE = 32;

/** Copies the upper triangle of H `[n, n]` to the lower one. */
function mirror(H: Float32Array, n: number): void {
  for (let i0 = 0; i0 < n; i0 += TILE) {
    for (let j0 = i0; j0 < n; j0 += TILE) {
      for (let i = i0; i < Math.min(n, i0 + TILE); i++) {
        for (let j = Math.max(i + 1, j0); j < Math.min(n, j0 + TILE); j++) H[j * n + i] = H[i * n + j];
      }
    }
  }
}
