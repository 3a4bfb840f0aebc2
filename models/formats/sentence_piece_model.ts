/**
 * Reads a SentencePiece `tokenizer.model` (a protocol buffer: sentencepiece/src/sentencepiece_model.proto), as far as the
 * llama line needs it: BPE vocabularies without a normalisation table.
 */
import { OatmillError } from "../../errors.ts";
import type { TokenizerFiles } from "../checkpoint.ts";
import { isJsonObject, type JsonObject } from "./json_file.ts";
import { type SentencePiece, sentencePieceFiles, TOKEN_TYPE } from "./sentence_piece.ts";
import { type AddedToken, addedTokenJson } from "./vocab_merges.ts";

const MAX_PIECES = 1 << 20;
/** `TrainerSpec.model_type` */
const BPE = 2;

interface SentencePieceModel {
  readonly pieces: readonly SentencePiece[];
  readonly addSpacePrefix: boolean;
}

/**
 * @param model the file's bytes
 * @param config tokenizer_config.json
 * @throws {OatmillError} invalid_tokenizer
 */
export function tokenizerFromSentencePiece(
  model: Uint8Array,
  config: JsonObject,
  chatTemplate: string | null,
): TokenizerFiles {
  const { pieces, addSpacePrefix } = parseModel(model);
  const bosPiece = pieces.find(({ text }) => text === textOf(config.bos_token ?? "<s>"))?.text ?? null;
  const bos = config.add_bos_token === false ? null : bosPiece;
  const named = { bos_token: bosPiece ?? undefined, eos_token: "</s>", unk_token: "<unk>", ...config };
  const files = sentencePieceFiles(pieces, { addSpacePrefix, bos, config: named, chatTemplate });
  const added = files.tokenizer.added_tokens as JsonObject[];
  return {
    ...files,
    tokenizer: { ...files.tokenizer, added_tokens: [...added, ...extraTokens(config, pieces.length)] },
  };
}

/** Tokens behind the model's own, which only the config names. */
function extraTokens(config: JsonObject, pieceCount: number): JsonObject[] {
  const table = isJsonObject(config.added_tokens_decoder) ? config.added_tokens_decoder : {};
  const extra: AddedToken[] = [];
  for (const [key, value] of Object.entries(table)) {
    const id = Number(key);
    if (!isJsonObject(value) || typeof value.content !== "string" || !(id >= pieceCount)) continue;
    extra.push({ id, content: value.content, special: value.special === true });
  }
  return extra.map(addedTokenJson);
}

function textOf(token: unknown): unknown {
  return isJsonObject(token) ? token.content : token;
}

function parseModel(bytes: Uint8Array): SentencePieceModel {
  const pieces: SentencePiece[] = [];
  let modelType = 1, addSpacePrefix = true;
  for (const { field, value } of fieldsOf(bytes)) {
    if (!(value instanceof Uint8Array)) continue;
    if (field === 1) pieces.push(parsePiece(value));
    if (pieces.length > MAX_PIECES) throw invalid(`more than ${MAX_PIECES} pieces`);
    if (field === 2) modelType = Number(fieldsOf(value).find((f) => f.field === 3)?.value ?? modelType);
    if (field === 3) addSpacePrefix = parseNormalizer(value);
  }
  if (pieces.length === 0) throw invalid("it holds no pieces");
  if (modelType !== BPE) throw invalid(`model type ${modelType} is unsupported, only BPE (${BPE}) is`);
  return { pieces, addSpacePrefix };
}

function parsePiece(bytes: Uint8Array): SentencePiece {
  let text = "", score = 0, type: number = TOKEN_TYPE.normal;
  for (const { field, value } of fieldsOf(bytes)) {
    if (field === 1 && value instanceof Uint8Array) text = utf8(value);
    if (field === 2 && typeof value === "number") score = value;
    if (field === 3) type = Number(value);
  }
  return { text, score, type };
}

/** @returns whether text gets a space before it */
function parseNormalizer(bytes: Uint8Array): boolean {
  const fields = new Map(fieldsOf(bytes).map(({ field, value }) => [field, value]));
  const table = fields.get(2);
  if (table instanceof Uint8Array && table.length > 0) {
    throw invalid("its normalisation table is unsupported");
  }
  if (fields.get(4) !== 0n) throw invalid("dropping of repeated spaces is unsupported");
  return fields.get(3) !== 0n;
}

/** bigint: varint; number: 4-byte float; bytes: text, message, or 8 bytes. */
interface Field {
  readonly field: number;
  readonly value: bigint | number | Uint8Array;
}

function fieldsOf(bytes: Uint8Array): Field[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 64n; shift += 7n) {
      if (at >= bytes.length) throw invalid("it is truncated");
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw invalid("a number has more than 64 bits");
  };
  const take = (length: bigint): Uint8Array => {
    if (length > BigInt(bytes.length - at)) throw invalid("a length leaves the file");
    return bytes.subarray(at, at += Number(length));
  };
  while (at < bytes.length) {
    const key = varint();
    const field = Number(key >> 3n), wire = Number(key & 7n);
    if (wire === 0) fields.push({ field, value: varint() });
    else if (wire === 1) fields.push({ field, value: take(8n) });
    else if (wire === 2) fields.push({ field, value: take(varint()) });
    else if (wire === 5) fields.push({ field, value: (take(4n), view.getFloat32(at - 4, true)) });
    else throw invalid(`wire type ${wire} is unknown`);
  }
  return fields;
}

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid("a piece is not valid UTF-8");
  }
}

function invalid(why: string): OatmillError {
  return new OatmillError("invalid_tokenizer", `Cannot parse the sentencepiece tokenizer.model: ${why}`);
}
