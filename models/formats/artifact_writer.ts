/** Writes artifact folders: under a temporary name that a later writer may go on with, renamed when whole. */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { TokenizerFiles } from "../checkpoint.ts";
import { alignUp, entryBytes } from "../pack_dense.ts";
import { checkTokenizerJson } from "../tokenizer_check.ts";
import { writeTokenizerFiles } from "../tokenizer_files.ts";
import { exists, hashFile, HEADER_FILE, READ_BYTES, WEIGHTS_FILE } from "./artifact_files.ts";
import type { ArtifactHeader, TensorEntry } from "./artifact_header.ts";
import { NEWEST_FORMAT } from "./artifact_upgrade.ts";
import { rememberVerified } from "./verified.ts";

const encoder = new TextEncoder();

/** What the folder's files say of themselves; the rest of a header is the writer's to say. */
type WrittenFields = Pick<ArtifactHeader, "format" | "tensors" | "bytes" | "files">;
type HeaderRest = Omit<ArtifactHeader, keyof WrittenFields>;
/** What reading a folder relies on, whatever model it holds. */
export type StoredHeader = WrittenFields & Pick<ArtifactHeader, "name" | "blockChunks">;

/** Tensors that are on the disk, for a later writer that goes on behind them. */
export interface WriterMark {
  readonly entries: readonly TensorEntry[];
  /** Of the tensors' data. */
  readonly from: number;
  readonly to: number;
  readonly sha256: string;
}

export interface WriterOptions {
  /** Bound on the number of `add()` calls: room for the safetensors header is reserved. */
  readonly maxTensors: number;
  /** Folder to write in; without it one beside the artifact, of a name that nobody has. */
  readonly temporary?: string;
  /** What an earlier writer of the same `temporary` and `maxTensors` marked: tensors that need not be added again. */
  readonly marks?: readonly WriterMark[];
}

/** Writes one artifact. Either `finish()` or `abort()` ends it. */
export class ArtifactWriter {
  readonly #tensors: TensorEntry[] = [];
  readonly #names = new Set<string>();
  #offset = 0;
  #open = true;
  /** Behind the last mark. */
  #unmarked = { from: 0, tensors: 0, hash: createHash("sha256") };

  private constructor(
    readonly dir: string,
    readonly temp: string,
    readonly file: Deno.FsFile,
    readonly dataStart: number,
    /** How many of the options' marks are there; the rest of what was written is not. */
    readonly resumed: number,
  ) {}

  /**
   * @param dir the folder to create; it must not exist
   * @throws {OatmillError} conflict when `dir` exists, storage_failed when it cannot be written
   */
  static async create(dir: string, options: WriterOptions): Promise<ArtifactWriter> {
    const { maxTensors, temporary, marks = [] } = options;
    const temp = temporary ?? join(dirname(dir), `.${basename(dir)}.${crypto.randomUUID()}.tmp`);
    const dataStart = alignUp(8 + 160 * maxTensors);
    return await storage(`Cannot write artifact "${dir}"`, async () => {
      if (await exists(dir)) {
        throw new OatmillError("conflict", `Cannot write artifact "${dir}": the folder already exists`);
      }
      const whole = await wholeMarks(join(temp, WEIGHTS_FILE), dataStart, marks);
      if (whole.length === 0) await Deno.remove(temp, { recursive: true }).catch(() => {});
      await Deno.mkdir(temp, { recursive: true });
      const file = await Deno.open(join(temp, WEIGHTS_FILE), { write: true, create: true });
      const writer = new ArtifactWriter(dir, temp, file, dataStart, whole.length);
      await writer.#goOnBehind(whole);
      return writer;
    }).catch(async (error) => {
      if (!temporary) await Deno.remove(temp, { recursive: true }).catch(() => {});
      throw error;
    });
  }

  async #goOnBehind(marks: readonly WriterMark[]): Promise<void> {
    for (const { entries, to } of marks) {
      for (const entry of entries) this.#enter(entry);
      this.#offset = to;
    }
    this.#beginMark();
    await this.file.truncate(this.dataStart + this.#offset);
    await this.file.seek(this.dataStart + this.#offset, Deno.SeekMode.Start);
  }

  #enter(entry: TensorEntry): void {
    this.#tensors.push(entry);
    this.#names.add(entry.name);
  }

  /** Whether a tensor is there: of an earlier writer, perhaps. */
  has(name: string): boolean {
    return this.#names.has(name);
  }

  /**
   * Appends one tensor; `bytes` must have the size that its format and shape ask for. One that is there already stays as
   * it is.
   */
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
    if (this.has(name)) return;
    await storage(`Cannot write tensor "${name}"`, async () => {
      await this.#append(bytes);
      const padding = alignUp(bytes.length) - bytes.length;
      if (padding > 0) await this.#append(new Uint8Array(padding));
    });
    this.#enter({ name, format, shape, offset: this.#offset, bytes: bytes.length });
    this.#offset += alignUp(bytes.length);
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await writeAll(this.file, bytes);
    this.#unmarked.hash.update(bytes);
  }

  /** What was added since the last mark, on the disk now. @throws {OatmillError} storage_failed */
  async mark(): Promise<WriterMark> {
    await storage(`Cannot write artifact "${this.dir}"`, () => this.file.syncData());
    const { from, tensors, hash } = this.#unmarked;
    this.#beginMark();
    return { entries: this.#tensors.slice(tensors), from, to: this.#offset, sha256: hash.digest("hex") };
  }

  #beginMark(): void {
    this.#unmarked = { from: this.#offset, tensors: this.#tensors.length, hash: createHash("sha256") };
  }

  /** Adds a small file that is no tensor. */
  async addFile(name: string, bytes: Uint8Array): Promise<void> {
    await storage(`Cannot write "${name}"`, () => Deno.writeFile(join(this.temp, name), bytes));
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
    return await storage(`Cannot write artifact "${this.dir}"`, async () => {
      await this.#writeSafetensorsHeader();
      this.#close();
      if (tokenizer) await writeTokenizerFiles(this.temp, tokenizer);
      const files: Record<string, { bytes: number; sha256: string }> = {};
      for await (const e of Deno.readDir(this.temp)) {
        using file = await Deno.open(join(this.temp, e.name), { read: true, write: true });
        await file.sync();
        files[e.name] = await hashFile(join(this.temp, e.name));
      }
      const info = await Deno.stat(join(this.temp, WEIGHTS_FILE));
      const { sha256 } = files[WEIGHTS_FILE];
      await rememberVerified(this.temp, WEIGHTS_FILE, { info, sha256, fresh: true });
      const header = {
        ...rest,
        format: NEWEST_FORMAT as typeof NEWEST_FORMAT,
        bytes: this.bytes,
        tensors: this.#tensors,
        files,
      };
      await writeHeader(this.temp, header);
      await Deno.rename(this.temp, this.dir);
      return header;
    });
  }

  /** Ends the writing; what is marked stays for the next writer. Harmless after `finish()`. */
  close(): void {
    this.#close();
  }

  /** Removes everything written. Harmless after `finish()`. */
  async abort(): Promise<void> {
    this.#close();
    await Deno.remove(this.temp, { recursive: true }).catch(() => {});
  }

  #close(): void {
    if (this.#open) this.file.close();
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
    const size = this.dataStart - 8;
    if (json.length > size) {
      throw new RangeError(`Header of ${json.length} bytes does not fit into ${size}: raise maxTensors`);
    }
    const bytes = new Uint8Array(8 + size).fill(0x20); // the format allows trailing spaces
    new DataView(bytes.buffer).setBigUint64(0, BigInt(size), true);
    bytes.set(json, 8);
    await this.file.seek(0, Deno.SeekMode.Start);
    await writeAll(this.file, bytes);
  }
}

/** The marks up to the first whose bytes are not those that were written. */
async function wholeMarks(
  path: string,
  dataStart: number,
  marks: readonly WriterMark[],
): Promise<readonly WriterMark[]> {
  if (marks.length === 0 || !await exists(path)) return [];
  using file = await Deno.open(path);
  for (const [i, { from, to, sha256 }] of marks.entries()) {
    if (await hashRange(file, { from: dataStart + from, to: dataStart + to }) !== sha256) {
      return marks.slice(0, i);
    }
  }
  return marks;
}

/** SHA-256 of a part of a file; of less where it ends before. */
async function hashRange(
  file: Deno.FsFile,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<string> {
  const hash = createHash("sha256"), buffer = new Uint8Array(READ_BYTES);
  await file.seek(from, Deno.SeekMode.Start);
  for (let left = to - from; left > 0;) {
    const n = await file.read(buffer.subarray(0, Math.min(left, buffer.length)));
    if (n === null) break;
    hash.update(buffer.subarray(0, n));
    left -= n;
  }
  return hash.digest("hex");
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
