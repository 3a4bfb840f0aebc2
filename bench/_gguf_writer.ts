/**
 * Rewrites a GGUF file with every matrix in one block type, so that llama.cpp can be measured on weights made from the
 * very ones that Oatmill runs. Embedding and head are in that type too, as after `llama-quantize --pure` (without it,
 * llama.cpp's 4-bit files keep them at 6 bits); vectors are f32. Metadata is copied byte for byte, and so are the blocks
 * of a tensor that has the wanted type already.
 */
import { GgufFile } from "../models/formats/gguf.ts";
import { GgufCursor } from "../models/formats/gguf_cursor.ts";
import { type GgufTensor, parseGgufHeader } from "../models/formats/gguf_header.ts";
import { GGML_TYPES, type GgmlType } from "../models/formats/gguf_types.ts";
import { readValue } from "../models/formats/gguf_value.ts";
import { RandomAccessFile } from "../models/formats/random_access_file.ts";
import { BLOCK, type BlockTypeName, quantizeBlocks } from "../models/formats/gguf_blocks.ts";

/** GGUF's default; a file that says otherwise carries `general.alignment`, which is copied and read below. */
const DEFAULT_ALIGNMENT = 32;
/** Enough for the header of any file whose vocabulary fits a benchmark model. */
const HEADER_BYTES = 64 << 20;
/** Read, quantised and written at a time: whole blocks, and little memory beside a model of gigabytes. */
const PIECE_WEIGHTS = 1 << 20;

interface OutTensor {
  readonly source: GgufTensor;
  readonly typeId: number;
  readonly type: GgmlType;
  readonly weights: number;
  readonly bytes: number;
}

const TYPE_IDS = new Map(GGML_TYPES.entries().map(([id, { name }]) => [name, id]));

/**
 * Reads `source`, writes `out`.
 * @throws {OatmillError} invalid_checkpoint, unsupported_format
 */
export async function writeGguf(source: string, out: string, type: BlockTypeName): Promise<void> {
  using input = await GgufFile.open(source);
  using raw = await RandomAccessFile.open(source);
  const prefix = await raw.read(0, Math.min(raw.sizeBytes, HEADER_BYTES));
  const { tensors, metadata } = parseGgufHeader(prefix, raw.sizeBytes, source);
  const alignment = Number(metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT);
  const padding = (bytes: number) => new Uint8Array((alignment - bytes % alignment) % alignment);

  using file = await Deno.open(out, { write: true, create: true, truncate: true });
  const writer = file.writable.getWriter();
  const outTensors = [...tensors.values()].map((t) => planTensor(t, type));
  const head = prefix.subarray(0, metadataEnd(prefix, raw.sizeBytes, source));
  await writer.write(head);
  let written = head.length, offset = 0;
  for (const tensor of outTensors) {
    const info = tensorInfo(tensor, offset);
    await writer.write(info);
    written += info.length;
    offset += tensor.bytes + padding(tensor.bytes).length;
  }
  await writer.write(padding(written));
  for (const tensor of outTensors) {
    for await (const piece of tensorPieces(tensor, input, raw)) await writer.write(piece);
    await writer.write(padding(tensor.bytes));
  }
  await writer.close();
}

function planTensor(source: GgufTensor, wanted: BlockTypeName): OutTensor {
  const isMatrix = source.shape.length > 1 && source.shape.at(-1)! % BLOCK === 0;
  const typeId = TYPE_IDS.get(isMatrix ? wanted : "F32")!;
  const type = GGML_TYPES.get(typeId)!;
  const weights = source.shape.reduce((a, b) => a * b, 1);
  return { source, typeId, type, weights, bytes: weights / type.blockElements * type.blockBytes };
}

/** Bytes of the header up to the tensor infos. */
function metadataEnd(prefix: Uint8Array, fileBytes: number, source: string): number {
  const cursor = new GgufCursor(prefix, fileBytes, source);
  cursor.take(16); // magic, version, tensor count
  for (let entries = Number(cursor.u64()); entries > 0; entries--) {
    cursor.string();
    readValue(cursor, cursor.u32());
  }
  return cursor.position;
}

/** Name, dims (innermost first), type, offset from the start of the data. */
function tensorInfo({ source, typeId }: OutTensor, offset: number): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(source.name);
  const dims = source.shape.toReversed();
  const info = new Uint8Array(8 + name.length + 4 + dims.length * 8 + 4 + 8);
  const view = new DataView(info.buffer);
  view.setBigUint64(0, BigInt(name.length), true);
  info.set(name, 8);
  let at = 8 + name.length;
  view.setUint32(at, dims.length, true);
  dims.forEach((d, i) => view.setBigUint64(at + 4 + i * 8, BigInt(d), true));
  at += 4 + dims.length * 8;
  view.setUint32(at, typeId, true);
  view.setBigUint64(at + 4, BigInt(offset), true);
  return info;
}

async function* tensorPieces(
  { source, type, weights }: OutTensor,
  input: GgufFile,
  raw: RandomAccessFile,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  const bytesOf = (count: number) => count / type.blockElements * type.blockBytes;
  for (let first = 0; first < weights; first += PIECE_WEIGHTS) {
    const count = Math.min(PIECE_WEIGHTS, weights - first);
    if (source.type === type) {
      yield await raw.read(source.offset + bytesOf(first), bytesOf(count));
      continue;
    }
    const values = await input.readFloat32(source.name, first, count);
    yield type.name === "F32"
      ? new Uint8Array(values.buffer)
      : quantizeBlocks(type.name as BlockTypeName, values);
  }
}
