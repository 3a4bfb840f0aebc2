/**
 * Artifact folders: written under a temporary name and renamed when whole; read with every size and hash checked. Weights
 * whose hash was checked before (verified.ts) may be read by several threads; others are read and hashed in one
 * sequential pass that puts each tensor where the engine wants it.
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import { formatName, MAX_HALF_WINDOWS } from "../../kernels/layout.ts";
import type { TokenizerFiles } from "../checkpoint.ts";
import { alignUp, entryBytes } from "../pack_dense.ts";
import type { PackedFile, PackedModel } from "../packed.ts";
import { checkTokenizerJson } from "../tokenizer_check.ts";
import { MAX_EXPERTS } from "../spec.ts";
import { readTokenizerFiles, writeTokenizerFiles } from "../tokenizer_files.ts";
import type { ArtifactHeader, TensorEntry } from "./artifact_header.ts";
import { asStored, NEWEST_FORMAT, upgradedLoad } from "./artifact_upgrade.ts";
import { readJsonFile } from "./json_file.ts";
import { isVerified, rememberVerified } from "./verified.ts";

export const HEADER_FILE = "oatmill.json";
export const WEIGHTS_FILE = "model.safetensors";
/** How images become pixels, in models that read them: the file that their source has. */
export const IMAGE_PROCESSOR_FILE = "preprocessor_config.json";
/** Read size of the loading pass: large enough for full disk speed, small enough to stay in the L2/L3 cache for hashing. */
const READ_BYTES = 1 << 20;
const MAX_HEADER_BYTES = 64 << 20;
/** Reading is synchronous, straight into shared memory; others get a turn about every 5 ms. */
const YIELD_BYTES = 8 << 20;

const encoder = new TextEncoder();

/** What the folder's files say of themselves; the rest of a header is the writer's to say. */
type WrittenFields = Pick<ArtifactHeader, "format" | "tensors" | "bytes" | "files">;
type HeaderRest = Omit<ArtifactHeader, keyof WrittenFields>;
/** What reading a folder relies on, whatever model it holds. */
export type StoredHeader = WrittenFields & Pick<ArtifactHeader, "name" | "blockChunks">;

/** Writes one artifact. Either `finish()` or `abort()` ends it. */
export class ArtifactWriter {
  readonly #dir: string;
  readonly #temp: string;
  readonly #file: Deno.FsFile;
  readonly #dataStart: number;
  readonly #tensors: TensorEntry[] = [];
  #offset = 0;
  #open = true;

  private constructor(dir: string, temp: string, file: Deno.FsFile, dataStart: number) {
    this.#dir = dir;
    this.#temp = temp;
    this.#file = file;
    this.#dataStart = dataStart;
  }

  /**
   * @param dir the folder to create; it must not exist
   * @param options.maxTensors bound on the number of `add()` calls: room for the safetensors header is reserved
   * @throws {OatmillError} conflict when `dir` exists, storage_failed when it cannot be written
   */
  static async create(dir: string, options: { readonly maxTensors: number }): Promise<ArtifactWriter> {
    const temp = join(dirname(dir), `.${basename(dir)}.${crypto.randomUUID()}.tmp`);
    return await storage(`Cannot write artifact "${dir}"`, async () => {
      if (await exists(dir)) {
        throw new OatmillError("conflict", `Cannot write artifact "${dir}": the folder already exists`);
      }
      await Deno.mkdir(temp, { recursive: true });
      const file = await Deno.open(join(temp, WEIGHTS_FILE), { write: true, createNew: true });
      const dataStart = alignUp(8 + 160 * options.maxTensors);
      await file.seek(dataStart, Deno.SeekMode.Start);
      return new ArtifactWriter(dir, temp, file, dataStart);
    }).catch(async (error) => {
      await Deno.remove(temp, { recursive: true }).catch(() => {});
      throw error;
    });
  }

  /** Appends one tensor; `bytes` must have the size that its format and shape ask for. */
  async add(
    name: string,
    format: TensorEntry["format"],
    shape: readonly number[],
    bytes: Uint8Array,
  ): Promise<void> {
    const expected = entryBytes(format, shape);
    if (bytes.length !== expected) {
      throw new RangeError(`Tensor "${name}" has ${bytes.length} bytes, must have ${expected}`);
    }
    await storage(`Cannot write tensor "${name}"`, async () => {
      await writeAll(this.#file, bytes);
      const padding = alignUp(bytes.length) - bytes.length;
      if (padding > 0) await writeAll(this.#file, new Uint8Array(padding));
    });
    this.#tensors.push({ name, format, shape, offset: this.#offset, bytes: bytes.length });
    this.#offset += alignUp(bytes.length);
  }

  /** Adds a small file that is no tensor. */
  async addFile(name: string, bytes: Uint8Array): Promise<void> {
    await storage(`Cannot write "${name}"`, () => Deno.writeFile(join(this.#temp, name), bytes));
  }

  /** Bytes of the tensors added so far. */
  get bytes(): number {
    return this.#tensors.reduce((n, t) => n + t.bytes, 0);
  }

  /**
   * Completes the folder and gives it its name.
   * @throws {OatmillError} invalid_tokenizer: who opens an artifact relies on a tokenizer that was checked
   */
  async finish<Rest extends Pick<ArtifactHeader, "name" | "blockChunks"> = HeaderRest>(
    rest: Rest,
    tokenizer: TokenizerFiles | null,
  ): Promise<Rest & WrittenFields> {
    if (tokenizer) checkTokenizerJson(tokenizer.tokenizer);
    return await storage(`Cannot write artifact "${this.#dir}"`, async () => {
      await this.#writeSafetensorsHeader();
      this.#close();
      if (tokenizer) await writeTokenizerFiles(this.#temp, tokenizer);
      const files: Record<string, { bytes: number; sha256: string }> = {};
      for await (const e of Deno.readDir(this.#temp)) {
        using file = await Deno.open(join(this.#temp, e.name), { read: true, write: true });
        await file.sync();
        files[e.name] = await hashFile(join(this.#temp, e.name));
      }
      const info = await Deno.stat(join(this.#temp, WEIGHTS_FILE));
      const { sha256 } = files[WEIGHTS_FILE];
      await rememberVerified(this.#temp, WEIGHTS_FILE, { info, sha256, fresh: true });
      const header = {
        ...rest,
        format: NEWEST_FORMAT as typeof NEWEST_FORMAT,
        bytes: this.bytes,
        tensors: this.#tensors,
        files,
      };
      await writeHeader(this.#temp, header);
      await Deno.rename(this.#temp, this.#dir);
      return header;
    });
  }

  /** Removes everything written. Harmless after `finish()`. */
  async abort(): Promise<void> {
    this.#close();
    await Deno.remove(this.#temp, { recursive: true }).catch(() => {});
  }

  #close(): void {
    if (this.#open) this.#file.close();
    this.#open = false;
  }

  async #writeSafetensorsHeader(): Promise<void> {
    const entries: Record<string, unknown> = {};
    for (const t of this.#tensors) {
      entries[t.name] = {
        dtype: t.format.kind === "vector" ? "F32" : "U8",
        shape: t.format.kind === "vector" ? t.shape : [t.bytes],
        data_offsets: [t.offset, t.offset + t.bytes],
      };
    }
    const json = encoder.encode(JSON.stringify(entries));
    const size = this.#dataStart - 8;
    if (json.length > size) {
      throw new RangeError(`Header of ${json.length} bytes does not fit into ${size}: raise maxTensors`);
    }
    const bytes = new Uint8Array(8 + size).fill(0x20); // the format allows trailing spaces
    new DataView(bytes.buffer).setBigUint64(0, BigInt(size), true);
    bytes.set(json, 8);
    await this.#file.seek(0, Deno.SeekMode.Start);
    await writeAll(this.#file, bytes);
  }
}

/** Stores the perplexities of a finished artifact (its weights' hashes do not change). */
export async function updateHeader(dir: string, header: StoredHeader): Promise<void> {
  await storage(`Cannot update artifact "${dir}"`, () => writeHeader(dir, header));
}

async function writeHeader(dir: string, header: StoredHeader): Promise<void> {
  const temp = join(dir, `${HEADER_FILE}.tmp`);
  const f = await Deno.open(temp, { write: true, create: true, truncate: true });
  try {
    await writeAll(f, encoder.encode(JSON.stringify(header, null, 1)));
    await f.sync();
  } finally {
    f.close();
  }
  await Deno.rename(temp, join(dir, HEADER_FILE));
}

/** An artifact folder, opened. */
export interface Artifact extends PackedModel {
  readonly path: string;
  readonly header: ArtifactHeader;
  readonly tokenizerFiles: TokenizerFiles | null;
  /** Set when the weights' hash is known to be right. */
  readonly file: PackedFile | null;
}

const expertsSchema = z.object({ count: z.int().min(1).max(MAX_EXPERTS), perToken: z.int().min(1) })
  .refine(({ count, perToken }) => perToken <= count, "a token cannot have more experts than there are");

const blockSizesSchema = z.object({
  heads: z.int().positive(),
  kvHeads: z.int().positive(),
  intermediateSize: z.int().positive(),
}).refine(({ heads, kvHeads }) => heads % kvHeads === 0, {
  message: "heads must be a multiple of kvHeads",
});

/** What every kind of artifact has in its header, as far as the loader relies on it. */
export const storedSchema = z.looseObject({
  format: z.union([z.literal(1), z.literal(2), z.literal(3)]),
  name: z.string(),
  blockChunks: z.int().min(1).max(4),
  tensors: z.array(z.object({
    name: z.string(),
    format: z.union([
      z.object({ kind: z.enum(["f32", "q8", "q4", "vector"]) }),
      z.object({
        kind: z.literal("windows"),
        windows: z.int().min(1).max(15),
        bits: z.union([z.literal(4), z.literal(8)]),
        blockChunks: z.int().min(1).max(4),
        halves: z.literal(true).optional(),
      }).refine(
        ({ windows, halves }) => !halves || windows <= MAX_HALF_WINDOWS,
        `halves with more than ${MAX_HALF_WINDOWS} windows`,
      ),
    ]),
    shape: z.array(z.int().nonnegative()).min(1).max(2),
    offset: z.int().nonnegative(),
    bytes: z.int().nonnegative(),
  })),
  files: z.record(z.string(), z.object({ bytes: z.int().nonnegative(), sha256: z.string() })),
});

// Only what the loader relies on is checked field by field; the rest is reported as it stands.
const headerSchema = storedSchema.extend({
  spec: z.looseObject({
    vocabSize: z.int().nonnegative(),
    hiddenSize: z.int().positive(),
    blocks: z.int().positive(),
    mlp: z.looseObject({ experts: expertsSchema.optional() }).optional(),
    blockSizes: z.array(blockSizesSchema).optional(),
    blockAttention: z.object({
      kinds: z.array(z.looseObject({})).min(1),
      kindOf: z.array(z.int().nonnegative()),
    }).refine(({ kinds, kindOf }) => kindOf.every((kind) => kind < kinds.length), "there is no such kind")
      .optional(),
  }).refine(({ blocks, blockSizes }) => !blockSizes || blockSizes.length === blocks, {
    path: ["blockSizes"],
    message: "there must be one entry for each block",
  }).refine(({ blocks, blockAttention }) => !blockAttention || blockAttention.kindOf.length === blocks, {
    path: ["blockAttention"],
    message: "there must be one entry for each block",
  }),
});

/** Is this folder an artifact? */
export const isArtifact = (dir: string): Promise<boolean> => exists(join(dir, HEADER_FILE));

/**
 * Opens an artifact: reads and checks `oatmill.json` and the small files; the weights are read and their hash checked by
 * `load()`.
 * @throws {OatmillError} invalid_artifact
 */
export async function openArtifact(dir: string): Promise<Artifact> {
  const { json, ...stored } = await openStored(dir, headerSchema);
  const header = sinceEncoders(json as ArtifactHeader); // checked as far as the loader relies on it
  return {
    ...stored,
    header,
    spec: header.spec,
    imageProcessor: header.files[IMAGE_PROCESSOR_FILE]
      ? await readJsonFile(join(dir, IMAGE_PROCESSOR_FILE), "invalid_artifact")
      : null,
    tokenizerFiles: header.files["tokenizer.json"] ? await readTokenizerFiles(dir) : null,
  };
}

/** An artifact's header, and its weights; small files have been checked. */
export interface StoredFolder extends Omit<PackedModel, "spec"> {
  readonly path: string;
  readonly json: unknown;
  readonly file: PackedFile | null;
}

/**
 * Opens a folder of any kind of artifact.
 * @param schema of its header
 * @throws {OatmillError} invalid_artifact
 */
export async function openStored(dir: string, schema: typeof storedSchema): Promise<StoredFolder> {
  const bad = (why: string, cause?: unknown) =>
    new OatmillError("invalid_artifact", `Cannot open artifact "${dir}": ${why}`, null, { cause });
  const json = await readHeader(dir);
  const kind = (json as { readonly kind?: unknown } | null)?.kind;
  if (kind !== undefined && !("kind" in schema.shape)) {
    throw new OatmillError(
      "unsupported_architecture",
      `Cannot open artifact "${dir}" as a model of blocks: it is of kind ${kind}, which is served and evaluated as it is`,
    );
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw bad(`${HEADER_FILE}: ${issue.path.join(".")}: ${issue.message}`);
  }
  const header = json as StoredHeader; // checked above
  let end = 0;
  for (const t of header.tensors) {
    if (t.offset < end || t.bytes !== entryBytes(t.format, t.shape)) {
      throw bad(
        `tensor "${t.name}" (${t.format.kind === "vector" ? "f32" : formatName(t.format)}) has wrong offsets`,
      );
    }
    end = t.offset + t.bytes;
  }
  for (const [name, { sha256 }] of Object.entries(header.files)) {
    if (name === WEIGHTS_FILE) continue;
    if (basename(name) !== name) throw bad(`"${name}" is not a file name`);
    const found = await hashFile(join(dir, name)).catch((e) => {
      throw bad(`${name} cannot be read`, e);
    });
    if (found.sha256 !== sha256) throw bad(`the SHA-256 of ${name} differs: the file is damaged`);
  }
  return {
    path: dir,
    json,
    name: header.name,
    blockChunks: header.blockChunks,
    tensors: header.tensors,
    load: upgradedLoad(header, (destination) => loadWeights(dir, header, destination)),
    file: asStored(header) ? await verifiedFile(dir, header) : null,
  };
}

/** An artifact's header as it stands. @throws {OatmillError} invalid_artifact when it cannot be read */
export async function readHeader(dir: string): Promise<unknown> {
  const bad = (why: string, cause?: unknown) =>
    new OatmillError("invalid_artifact", `Cannot open artifact "${dir}": ${why}`, null, { cause });
  try {
    const info = await Deno.stat(join(dir, HEADER_FILE));
    if (info.size > MAX_HEADER_BYTES) throw bad(`${HEADER_FILE} has ${info.size} bytes`);
    return JSON.parse(await Deno.readTextFile(join(dir, HEADER_FILE)));
  } catch (e) {
    throw e instanceof OatmillError ? e : bad(`${HEADER_FILE} cannot be read`, e);
  }
}

/** The weights as a file that needs no hashing, or null when it does. */
async function verifiedFile(dir: string, header: StoredHeader): Promise<PackedFile | null> {
  const path = join(dir, WEIGHTS_FILE);
  const sha256 = header.files[WEIGHTS_FILE]?.sha256 ?? "";
  const unchanged = async () => {
    const info = await Deno.stat(path).catch(() => null);
    return info !== null && info.size === header.files[WEIGHTS_FILE]?.bytes &&
      await isVerified(dir, WEIGHTS_FILE, { info, sha256 });
  };
  if (!await unchanged()) return null;
  using file = await Deno.open(path);
  const prefix = new Uint8Array(8);
  for (let n = 0; n < prefix.length;) n += await file.read(prefix.subarray(n)) ?? prefix.length;
  const dataStart = 8 + Number(new DataView(prefix.buffer).getBigUint64(0, true));
  const last = header.tensors.at(-1);
  // load() says what is wrong with such a file.
  if (last && dataStart + last.offset + last.bytes > header.files[WEIGHTS_FILE].bytes) return null;
  const confirm = async () => {
    if (await unchanged()) return;
    throw new OatmillError(
      "invalid_artifact",
      `Cannot load "${path}": the file was changed while it was read`,
    );
  };
  return { path, dataStart, confirm };
}

/** Headers written before there were encoders do not say that their model is a decoder. */
function sinceEncoders(header: ArtifactHeader): ArtifactHeader {
  const { spec } = header;
  return {
    ...header,
    spec: { ...spec, attention: { ...spec.attention, causal: spec.attention?.causal ?? true } },
  };
}

/** One sequential read: header, then each tensor straight into its destination, hashed on the way. */
async function loadWeights(
  dir: string,
  header: StoredHeader,
  destination: (entry: TensorEntry) => Uint8Array,
): Promise<void> {
  const path = join(dir, WEIGHTS_FILE);
  const expected = header.files[WEIGHTS_FILE];
  const bad = (why: string) => new OatmillError("invalid_artifact", `Cannot load "${path}": ${why}`);
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch {
    throw bad("the file cannot be opened");
  }
  try {
    const askedMs = Date.now(), info = file.statSync();
    const { size } = info;
    if (size !== expected?.bytes) {
      throw bad(`the file has ${size} bytes, must have ${expected?.bytes}`);
    }
    const hash = createHash("sha256");
    const read = (view: Uint8Array): void => {
      for (let n = 0; n < view.length;) {
        const part = view.subarray(n, Math.min(n + READ_BYTES, view.length));
        const k = file.readSync(part);
        if (k === null) throw bad("data ends early");
        hash.update(part.subarray(0, k));
        n += k;
      }
    };
    const prefix = new Uint8Array(8);
    read(prefix);
    const headerBytes = Number(new DataView(prefix.buffer).getBigUint64(0, true));
    if (headerBytes > MAX_HEADER_BYTES || 8 + headerBytes > size) {
      throw bad(`its header claims ${headerBytes} bytes`);
    }
    read(new Uint8Array(headerBytes));
    const last = header.tensors.at(-1);
    if (last && 8 + headerBytes + last.offset + last.bytes > size) throw bad("tensors leave the file");
    let at = 0, yielded = 0;
    for (const t of header.tensors) {
      if (at - yielded > YIELD_BYTES) {
        await new Promise((resolve) => setImmediate(resolve));
        yielded = at;
      }
      if (t.offset > at) read(new Uint8Array(t.offset - at));
      const view = destination(t);
      if (view.length !== t.bytes) {
        throw new RangeError(`Destination of "${t.name}" has ${view.length} bytes`);
      }
      read(view);
      at = t.offset + t.bytes;
    }
    read(new Uint8Array(size - 8 - headerBytes - at));
    if (hash.digest("hex") !== expected.sha256) throw bad("the SHA-256 differs: the file is damaged");
    await rememberVerified(dir, WEIGHTS_FILE, { info, askedMs, sha256: expected.sha256 });
  } finally {
    file.close();
  }
}

async function hashFile(path: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  using file = await Deno.open(path);
  const buffer = new Uint8Array(READ_BYTES);
  for (let n = await file.read(buffer); n !== null; n = await file.read(buffer)) {
    hash.update(buffer.subarray(0, n));
    bytes += n;
  }
  return { bytes, sha256: hash.digest("hex") };
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (e) {
    if (e instanceof Deno.errors.NotFound || e instanceof Deno.errors.NotADirectory) return false;
    throw e;
  }
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let n = 0; n < bytes.length;) n += await file.write(bytes.subarray(n));
}

/** Turns errors of the file system into `storage_failed` with the reason (disk full, read-only, ...). */
async function storage<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (e) {
    if (e instanceof OatmillError || e instanceof RangeError || !(e instanceof Error)) throw e;
    throw new OatmillError("storage_failed", `${action}: ${e.message}`, null, { cause: e });
  }
}
