/**
 * The safetensors header: 8 bytes little-endian length, then that much JSON, `{name: {dtype, shape, data_offsets}}`, then
 * the data section, which the tensors must fill without gaps. https://github.com/huggingface/safetensors#format
 */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import { parseJsonObject } from "./json_file.ts";

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** First byte and the one after the last, from the start of the data section. */
  readonly begin: number;
  readonly end: number;
}

/** Bits per element of every type of the format that has whole bytes; reading knows fewer. */
const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  C64: 8,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;
export type SafetensorsDtype = keyof typeof DTYPE_BYTES;

export const LENGTH_BYTES = 8;
/** The reference implementation's limit. */
export const MAX_HEADER_BYTES = 100_000_000;

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().min(0)).max(64),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});

/**
 * Length of the JSON, checked before anything is allocated for it.
 * @param prefix the file's first bytes (8, or what there is)
 */
export function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  const fail = (why: string) =>
    new OatmillError("invalid_checkpoint", `Cannot read the header of "${file}": ${why}`);
  if (prefix.length < LENGTH_BYTES) throw fail(`the file is truncated or empty (${fileBytes} bytes)`);
  const start = new TextDecoder("latin1").decode(prefix.subarray(0, LENGTH_BYTES));
  if (start === "version ") {
    throw fail("this is a Git LFS pointer, not a safetensors file; fetch the real file");
  }
  if (start.startsWith("PK\x03\x04")) throw fail("this is a zip (a PyTorch pickle?), not a safetensors file");
  if (start.startsWith("<")) throw fail("this is a web page, not a safetensors file");
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw fail(`header of ${length} bytes is too large, at most ${MAX_HEADER_BYTES}`);
  }
  if (length < 2n) throw fail("the header is empty");
  if (Number(length) > fileBytes - LENGTH_BYTES) {
    throw fail(
      `the file is truncated: ${fileBytes} bytes, the header needs ${LENGTH_BYTES + Number(length)}`,
    );
  }
  return Number(length);
}

/**
 * @param json the header's JSON, without the length
 * @param dataBytes size of the data section
 * @param file its name, for messages
 * @returns entries in the order of their offsets
 * @throws {OatmillError} invalid_checkpoint, unsupported_format (a type outside the format)
 */
export function parseSafetensorsHeader(
  json: Uint8Array,
  dataBytes: number,
  file: string,
): SafetensorsEntry[] {
  const header = parseJsonObject(json, `the header of "${file}"`, "invalid_checkpoint");
  const names = Object.keys(header);
  if (countTopLevelKeys(new TextDecoder().decode(json)) !== names.length) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read the header of "${file}": a tensor name is duplicate`,
    );
  }
  const entries = names.filter((name) => name !== "__metadata__").map((name) =>
    parseEntry(name, header[name], file)
  );
  if (Object.hasOwn(header, "__metadata__")) checkMetadata(header.__metadata__, file);
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const { name, begin, end } of entries) {
    if (begin !== position) {
      throw invalidEntry(
        name,
        file,
        `${
          begin < position ? "overlaps" : "leaves a gap to"
        } the tensor before: offset is ${begin}, must be ${position}`,
      );
    }
    position = end;
  }
  if (position !== dataBytes) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read "${file}": ${position > dataBytes ? "it is truncated" : "it has trailing bytes"}: ` +
        `tensor offsets end at ${position}, the data section's size is ${dataBytes}`,
    );
  }
  return entries;
}

/**
 * Header bytes (length and JSON, padded with spaces so that the data section starts at a multiple of 8) of a file whose
 * tensors follow in the given order without gaps.
 */
export function safetensorsHeader(
  entries: readonly SafetensorsEntry[],
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  // A null prototype, so that a tensor may be called "__proto__".
  const header: Record<string, unknown> = Object.create(null);
  if (metadata) header.__metadata__ = metadata;
  for (const { name, dtype, shape, begin, end } of entries) {
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(LENGTH_BYTES + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - LENGTH_BYTES), true);
  bytes.set(json, LENGTH_BYTES);
  return bytes;
}

/** Bytes of a tensor, exact below 2^53. */
export function tensorBytes(dtype: SafetensorsDtype, shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]);
}

function parseEntry(name: string, value: unknown, file: string): SafetensorsEntry {
  const parsed = entrySchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw invalidEntry(
      name,
      file,
      `header entry ${issue.path.join(".").replace("data_offsets", "data offsets")}: ${issue.message}`,
    );
  }
  const { dtype, shape, data_offsets: [begin, end] } = parsed.data;
  if (!isDtype(dtype)) {
    throw new OatmillError(
      "unsupported_format",
      `Cannot read tensor "${name}" of "${file}": unknown dtype "${dtype}"`,
    );
  }
  if (begin > end) throw invalidEntry(name, file, `offset ${begin} lies behind its end ${end}`);
  const bytes = tensorBytes(dtype, shape);
  if (bytes !== end - begin) {
    throw invalidEntry(
      name,
      file,
      `shape [${shape}] of ${dtype} needs ${bytes} bytes, its offsets give ${end - begin}`,
    );
  }
  return { name, dtype, shape, begin, end };
}

function isDtype(dtype: string): dtype is SafetensorsDtype {
  return Object.hasOwn(DTYPE_BYTES, dtype);
}

function checkMetadata(metadata: unknown, file: string): void {
  if (z.record(z.string(), z.string()).safeParse(metadata).success) return;
  throw new OatmillError(
    "invalid_checkpoint",
    `Cannot read the header of "${file}": __metadata__ must hold strings`,
  );
}

function invalidEntry(name: string, file: string, why: string): OatmillError {
  return new OatmillError("invalid_checkpoint", `Cannot read tensor "${name}" of "${file}": ${why}`);
}

/** Keys of the outermost object of valid JSON, duplicates counted: JSON.parse keeps the last one silently. */
function countTopLevelKeys(json: string): number {
  let depth = 0, colons = 0;
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === '"') {
      for (i++; json[i] !== '"'; i++) if (json[i] === "\\") i++;
    } else if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") depth--;
    else if (c === ":" && depth === 1) colons++;
  }
  return colons;
}
