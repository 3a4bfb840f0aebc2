/**
 * Rewrites a GGUF file with every matrix as Q8_0 (blocks of 32: one f16 scale, 32 signed bytes), so that llama.cpp can be
 * measured on 8-bit weights made from the very weights that Oatmill runs. Metadata is copied byte for byte.
 */
import { GgufCursor } from "../models/formats/gguf_cursor.ts";
import { GgufFile } from "../models/formats/gguf.ts";
import { readValue } from "../models/formats/gguf_value.ts";

const BLOCK = 32, BLOCK_BYTES = 34;
const Q8_0 = 8, F32 = 0;
/** GGUF's default; a file that says otherwise carries `general.alignment`, which is copied and read below. */
const DEFAULT_ALIGNMENT = 32;
/** Enough for the header of any file whose vocabulary fits a benchmark model. */
const HEADER_BYTES = 64 << 20;

/** Rounds to nearest, scale = absmax / 127 (ggml's reference quantiser). */
export function quantizeQ8(values: Float32Array): Uint8Array {
  const out = new Uint8Array(values.length / BLOCK * BLOCK_BYTES);
  const view = new DataView(out.buffer);
  for (let b = 0; b < values.length / BLOCK; b++) {
    const block = values.subarray(b * BLOCK, (b + 1) * BLOCK);
    const scale = block.reduce((m, v) => Math.max(m, Math.abs(v)), 0) / 127;
    view.setFloat16(b * BLOCK_BYTES, scale, true);
    for (let i = 0; i < BLOCK; i++) {
      view.setInt8(b * BLOCK_BYTES + 2 + i, scale === 0 ? 0 : Math.round(block[i] / scale));
    }
  }
  return out;
}

interface Entry {
  readonly name: string;
  readonly dims: readonly bigint[];
}

/** Reads `source`, writes `out`. */
export async function writeGgufQ8(source: string, out: string): Promise<void> {
  const { size } = await Deno.stat(source);
  const prefix = new Uint8Array(Math.min(size, HEADER_BYTES));
  {
    using file = await Deno.open(source);
    for (let n = 0; n < prefix.length;) n += await file.read(prefix.subarray(n)) ?? prefix.length;
  }
  const cursor = new GgufCursor(prefix, size, source);
  cursor.take(8); // magic and version, which GgufFile.open() checks
  const tensorCount = Number(cursor.u64()), entryCount = Number(cursor.u64());
  let alignment = DEFAULT_ALIGNMENT;
  for (let i = 0; i < entryCount; i++) {
    const key = cursor.string();
    const value = readValue(cursor, cursor.u32());
    if (key === "general.alignment") alignment = Number(value);
  }
  const metadata = prefix.subarray(0, cursor.position);
  const entries: Entry[] = Array.from({ length: tensorCount }, () => {
    const name = cursor.string();
    const dims = Array.from({ length: cursor.u32() }, () => cursor.u64());
    cursor.take(12); // type and offset
    return { name, dims };
  });

  using input = await GgufFile.open(source);
  using file = await Deno.open(out, { write: true, create: true, truncate: true });
  const writer = file.writable.getWriter();
  await writer.write(metadata);
  const padded = (n: number) => Math.ceil(n / alignment) * alignment;
  const count = (e: Entry) => e.dims.reduce((a, b) => a * Number(b), 1);
  const matrix = (e: Entry) => e.dims.length > 1 && e.dims[0] % BigInt(BLOCK) === 0n;
  const bytes = (e: Entry) => matrix(e) ? count(e) / BLOCK * BLOCK_BYTES : count(e) * 4;
  let headerEnd = metadata.length, offset = 0;
  for (const e of entries) {
    const name = new TextEncoder().encode(e.name);
    const info = new Uint8Array(8 + name.length + 4 + e.dims.length * 8 + 12);
    const view = new DataView(info.buffer);
    view.setBigUint64(0, BigInt(name.length), true);
    info.set(name, 8);
    let at = 8 + name.length;
    view.setUint32(at, e.dims.length, true);
    at += 4;
    for (const d of e.dims) {
      view.setBigUint64(at, d, true);
      at += 8;
    }
    view.setUint32(at, matrix(e) ? Q8_0 : F32, true);
    view.setBigUint64(at + 4, BigInt(offset), true);
    await writer.write(info);
    headerEnd += info.length;
    offset += padded(bytes(e));
  }
  await writer.write(new Uint8Array(padded(headerEnd) - headerEnd));
  for (const e of entries) {
    const values = await input.readFloat32(e.name, 0, count(e));
    const data = matrix(e) ? quantizeQ8(values) : new Uint8Array(values.buffer);
    await writer.write(data);
    await writer.write(new Uint8Array(padded(data.length) - data.length));
  }
  await writer.close();
}
