/**
 * Reading packed weights on all compute threads at once, straight from the file into the shared memory. It was never
 * touched: one thread spends 50 ms on the page faults of 108 MB where the copy takes 12 (1.9 GB/s; 2 threads 3.4). In huge
 * pages (huge_pages.ts) it is 5.8 GB/s and 8.9, the file cache's own 5.8 into memory that was touched and 14 into a small
 * buffer. The main thread is free for the tokenizer meanwhile.
 */
import { OatmillError } from "../errors.ts";
import type { PackedFile, PackedModel } from "../models/packed.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import type { ComputeThreads } from "./compute_threads.ts";
import type { LoadTimes } from "./load_times.ts";

/** One run of the file. */
export interface ReadPiece {
  /** From the file's start. */
  readonly at: number;
  /** Shared: every thread sees the same bytes. */
  readonly bytes: Uint8Array;
}
export interface ReadJob {
  readonly path: string;
  readonly pieces: readonly ReadPiece[];
  /** One shared counter: the next piece that no thread has taken. */
  readonly next: Int32Array;
}

/** Small enough that threads end together, large enough that a call costs nothing beside its bytes. */
const PIECE_BYTES = 1 << 20;

/** @param destination where each tensor belongs, in shared memory */
export function readJob(
  { path, dataStart }: PackedFile,
  tensors: PackedModel["tensors"],
  destination: (entry: TensorEntry) => Uint8Array,
): ReadJob {
  const pieces: ReadPiece[] = [];
  for (const entry of tensors) {
    const bytes = destination(entry);
    for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
      pieces.push({ at: dataStart + entry.offset + from, bytes: bytes.subarray(from, from + PIECE_BYTES) });
    }
  }
  return { path, pieces, next: new Int32Array(new SharedArrayBuffer(4)) };
}

/** Reads pieces until none is left. Any thread; blocks it. @throws {RangeError} when the file ends early */
export function readPieces({ path, pieces, next }: ReadJob): void {
  using file = Deno.openSync(path);
  for (let i = Atomics.add(next, 0, 1); i < pieces.length; i = Atomics.add(next, 0, 1)) {
    const { at, bytes } = pieces[i];
    file.seekSync(at, Deno.SeekMode.Start);
    for (let n = 0; n < bytes.length;) {
      const read = file.readSync(bytes.subarray(n));
      if (read === null) throw new RangeError(`Cannot read ${path}: data ends early`);
      n += read;
    }
  }
}

/**
 * Weights into their places: read by all threads where they stand ready in a file, else by the model itself.
 * @throws {OatmillError} what `load()` throws, invalid_artifact when the file cannot be read
 */
export async function fillWeights(
  model: PackedModel,
  pool: ComputeThreads,
  { times, destination }: { times: LoadTimes; destination: (entry: TensorEntry) => Uint8Array },
): Promise<void> {
  const { file } = model;
  if (!file) return await times.time("weights", () => model.load(destination));
  const job = readJob(file, model.tensors, destination);
  try {
    times.add("weights", await pool.ask(() => ({ type: "read", job })));
  } catch (cause) {
    throw new OatmillError("invalid_artifact", `Cannot load "${file.path}"`, null, { cause });
  }
  await file.confirm();
}
