/** Reads a JSON file whose top level is an object; every way to be broken becomes one typed error. */
import { type ErrorCode, OatmillError } from "../../errors.ts";
import { basename } from "node:path";

export type JsonObject = Record<string, unknown>;

/** Room for the largest tokenizer.json met (33 MB, Gemma 3), several times over. */
const MAX_JSON_BYTES = 256 * 1024 * 1024;

/**
 * @returns null when the file does not exist
 * @throws {OatmillError} `code` when it is too large, not UTF-8, not JSON or not an object
 */
export async function readJsonFile(
  path: string,
  code: ErrorCode,
  maxBytes: number = MAX_JSON_BYTES,
): Promise<JsonObject | null> {
  const name = basename(path);
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    // A file may stand where a folder is looked into.
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw error;
  }
  if (!info.isFile) throw new OatmillError(code, `Cannot read ${name}: it must be a regular file`);
  if (info.size > maxBytes) {
    throw new OatmillError(
      code,
      `Cannot read ${name}: it has ${info.size} bytes, at most ${maxBytes} are allowed`,
    );
  }
  return parseJsonObject(await Deno.readFile(path), name, code);
}

/** @param name how messages call the source, such as `config.json` */
export function parseJsonObject(bytes: Uint8Array, name: string, code: ErrorCode): JsonObject {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); // drops a byte order mark
  } catch (cause) {
    throw new OatmillError(code, `Cannot read ${name}: it is not valid UTF-8`, null, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new OatmillError(code, `Cannot read ${name}: it is not valid JSON`, null, { cause });
  }
  if (!isJsonObject(value)) {
    throw new OatmillError(code, `Cannot read ${name}: its top level must be an object`);
  }
  return value;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
