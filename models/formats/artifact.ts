/**
 * Artifact folders (artifact_writer.ts makes them), read with every size and hash checked. Weights
 * whose hash was checked before (verified.ts) may be read by several threads; others are read and hashed in one
 * sequential pass that puts each tensor where the engine wants it.
 */
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import { formatName, MAX_HALF_WINDOWS } from "../../kernels/layout.ts";
import type { TokenizerFiles } from "../checkpoint.ts";
import { entryBytes } from "../pack_dense.ts";
import type { PackedFile, PackedModel } from "../packed.ts";
import { MAX_EXPERTS } from "../spec.ts";
import { readTokenizerFiles } from "../tokenizer_files.ts";
import { exists, hashFile, HEADER_FILE, READ_BYTES, WEIGHTS_FILE } from "./artifact_files.ts";
import type { ArtifactHeader, TensorEntry } from "./artifact_header.ts";
import { asStored, upgradedLoad } from "./artifact_upgrade.ts";
import type { StoredHeader } from "./artifact_writer.ts";
import { readJsonFile } from "./json_file.ts";
import { isVerified, rememberVerified } from "./verified.ts";

export { HEADER_FILE, WEIGHTS_FILE };
/** How images become pixels, in models that read them: the file that their source has. */
export const IMAGE_PROCESSOR_FILE = "preprocessor_config.json";
const MAX_HEADER_BYTES = 64 << 20;
/** Reading is synchronous, straight into shared memory; others get a turn about every 5 ms. */
const YIELD_BYTES = 8 << 20;

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
