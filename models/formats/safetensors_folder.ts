/** The safetensors files of a model folder: `model.safetensors`, or the shards that its index names. */
import { join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { TensorInfo, TensorSource } from "../tensor_source.ts";
import { readJsonFile } from "./json_file.ts";
import { SafetensorsFile } from "./safetensors.ts";

const INDEX_NAME = "model.safetensors.index.json";
const SINGLE_NAME = "model.safetensors";
const MAX_SHARDS = 4096;

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

  names(): Iterable<string> {
    return this.#fileOf.keys();
  }

  async readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const file = this.#file(name);
    this.#requireUnscaled(name);
    return await file.readFloat32(name, first, count);
  }

  /** The first bytes of a tensor as they are stored, as many as `out` takes. */
  async readBytes(name: string, out: Uint8Array): Promise<void> {
    await this.#file(name).readBytes(name, out);
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file) return file;
    throw new OatmillError("invalid_checkpoint", `Cannot read tensor "${name}": it is missing`);
  }

  /** Codes of 8 bits mostly count in units that stand beside them: without these they would be read wrong. */
  #requireUnscaled(name: string): void {
    const scale = [`${name}_scale`, `${name}_scale_inv`].find((other) => this.#fileOf.has(other));
    if (!scale || !this.info(name)?.type.startsWith("F8")) return;
    throw new OatmillError(
      "unsupported_format",
      `Cannot read tensor "${name}": it is quantised (scales in "${scale}"), wanted are plain float weights`,
    );
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

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
