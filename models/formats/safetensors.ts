/** Reads safetensors files: one file, or the shards that `model.safetensors.index.json` names. Never a whole file at once. */
import { basename, join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { TensorInfo, TensorSource } from "../tensor_source.ts";
import { readJsonFile } from "./json_file.ts";
import { RandomAccessFile } from "./random_access_file.ts";
import {
  headerLength,
  LENGTH_BYTES,
  parseSafetensorsHeader,
  type SafetensorsEntry,
} from "./safetensors_header.ts";
import { widenBfloat16, widenFloat16 } from "./widen.ts";

export { type SafetensorsEntry, safetensorsHeader } from "./safetensors_header.ts";

/** Bytes read at a time while widening, a multiple of every element size. */
const PIECE_BYTES = 4 * 1024 * 1024;
const MAX_SHARDS = 4096;

type Widen = (source: Uint8Array<ArrayBuffer>, out: Float32Array) => void;
const READABLE: Readonly<Record<string, { readonly bytes: number; readonly widen: Widen }>> = {
  F32: {
    bytes: 4,
    widen: (source, out) => out.set(new Float32Array(source.buffer, source.byteOffset, out.length)),
  },
  F16: { bytes: 2, widen: widenFloat16 },
  BF16: { bytes: 2, widen: widenBfloat16 },
};

/** One open safetensors file. */
export class SafetensorsFile implements Disposable {
  readonly name: string;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Where the data section starts, from the start of the file. */
  readonly dataOffset: number;
  readonly #file: RandomAccessFile;

  private constructor(file: RandomAccessFile, dataOffset: number, entries: readonly SafetensorsEntry[]) {
    this.#file = file;
    this.name = basename(file.path);
    this.dataOffset = dataOffset;
    this.entries = new Map(entries.map((entry) => [entry.name, entry]));
  }

  /** @throws {OatmillError} invalid_checkpoint, unsupported_format */
  static async open(path: string): Promise<SafetensorsFile> {
    const file = await RandomAccessFile.open(path);
    try {
      const name = basename(path);
      const prefix = await file.read(0, Math.min(LENGTH_BYTES, file.sizeBytes));
      const length = headerLength(prefix, file.sizeBytes, name);
      const json = await file.read(LENGTH_BYTES, length);
      const dataOffset = LENGTH_BYTES + length;
      return new SafetensorsFile(
        file,
        dataOffset,
        parseSafetensorsHeader(json, file.sizeBytes - dataOffset, name),
      );
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Bytes of all tensors. */
  get tensorBytes(): number {
    return this.#file.sizeBytes - this.dataOffset;
  }

  /** The stored bytes of a tensor, from its byte `first` on, into `out`. */
  async readBytes(name: string, out: Uint8Array, first = 0): Promise<void> {
    await this.#file.readInto(this.dataOffset + this.#entry(name).begin + first, out);
  }

  /** Elements `first` to `first + count - 1` as float32; F32, F16 and BF16 only. */
  async readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    if (!Object.hasOwn(READABLE, entry.dtype)) {
      throw new OatmillError(
        "unsupported_format",
        `Cannot read tensor "${name}" of "${this.name}": its dtype is ${entry.dtype}, supported are F32, F16 and BF16`,
      );
    }
    const { bytes, widen } = READABLE[entry.dtype];
    if (first < 0 || count < 0 || (first + count) * bytes > entry.end - entry.begin) {
      throw new RangeError(`Elements ${first} to ${first + count} lie outside tensor "${name}"`);
    }
    const out = new Float32Array(count);
    const piece = new Uint8Array(Math.min(PIECE_BYTES, count * bytes));
    for (let done = 0; done < count;) {
      const n = Math.min(piece.length / bytes, count - done);
      const source = piece.subarray(0, n * bytes);
      await this.readBytes(name, source, (first + done) * bytes);
      widen(source, out.subarray(done, done + n));
      done += n;
    }
    return out;
  }

  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read tensor "${name}": it is missing in "${this.name}"`,
    );
  }
}

/** The tensors of a folder, over all its shards. */
export class SafetensorsFolder implements TensorSource, Disposable {
  readonly format = "safetensors";
  readonly #files: readonly SafetensorsFile[];
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;

  private constructor(files: readonly SafetensorsFile[], fileOf: ReadonlyMap<string, SafetensorsFile>) {
    this.#files = files;
    this.#fileOf = fileOf;
  }

  /**
   * Opens `model.safetensors`, or the shards of the index when there is one.
   * @throws {OatmillError} invalid_checkpoint, unsupported_format
   */
  static async open(folder: string): Promise<SafetensorsFolder> {
    const index = await readJsonFile(join(folder, INDEX_NAME), "invalid_checkpoint");
    const map = index ? parseWeightMap(index.weight_map) : null;
    const names = map ? [...new Set(map.values())] : [SINGLE_NAME];
    const files: SafetensorsFile[] = [];
    try {
      for (const name of names) files.push(await SafetensorsFile.open(join(folder, name)));
      return new SafetensorsFolder(files, map ? shardedTensors(map, files) : singleTensors(files[0]));
    } catch (error) {
      for (const file of files) file.close();
      throw error;
    }
  }

  get tensorBytes(): number {
    return this.#files.reduce((sum, file) => sum + file.tensorBytes, 0);
  }

  info(name: string): TensorInfo | undefined {
    const file = this.#fileOf.get(name);
    const entry = file?.entries.get(name);
    return file && entry && { shape: entry.shape, type: entry.dtype, file: file.name };
  }

  async readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const file = this.#fileOf.get(name);
    if (!file) throw new OatmillError("invalid_checkpoint", `Cannot read tensor "${name}": it is missing`);
    return await file.readFloat32(name, first, count);
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export const INDEX_NAME = "model.safetensors.index.json";
export const SINGLE_NAME = "model.safetensors";

/** Tensor name -> shard name; shard names are plain file names, so that none leaves the folder. */
function parseWeightMap(value: unknown): Map<string, string> {
  const parsed = z.record(z.string(), z.string()).safeParse(value);
  if (!parsed.success || Object.keys(parsed.data).length === 0) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read ${INDEX_NAME}: weight_map must map tensor names to shard names`,
    );
  }
  const map = new Map(Object.entries(parsed.data));
  const shards = new Set(map.values());
  for (const shard of shards) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/.test(shard) || !shard.endsWith(".safetensors")) {
      throw new OatmillError(
        "invalid_checkpoint",
        `Cannot use shard name ${
          JSON.stringify(shard.slice(0, 80))
        } of ${INDEX_NAME}: it must be a plain file name, a path could lead outside the folder`,
      );
    }
  }
  if (shards.size > MAX_SHARDS) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read ${INDEX_NAME}: ${shards.size} shards, at most ${MAX_SHARDS}`,
    );
  }
  return map;
}

function shardedTensors(
  map: ReadonlyMap<string, string>,
  files: readonly SafetensorsFile[],
): Map<string, SafetensorsFile> {
  const byName = new Map(files.map((file) => [file.name, file]));
  const tensors = new Map<string, SafetensorsFile>();
  for (const [tensor, shard] of map) {
    const file = byName.get(shard);
    if (!file?.entries.has(tensor)) {
      throw new OatmillError(
        "invalid_checkpoint",
        `Cannot read ${INDEX_NAME}: tensor "${tensor}" is missing in shard "${shard}"`,
      );
    }
    tensors.set(tensor, file);
  }
  return tensors;
}

function singleTensors(file: SafetensorsFile): Map<string, SafetensorsFile> {
  return new Map([...file.entries.keys()].map((name) => [name, file]));
}
