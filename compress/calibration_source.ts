/** Documents to calibrate on: of a file or of a dataset folder, as text or as token ids. Knows no tokenizer. */
import { extname, join } from "node:path";
import { OatmillError } from "../errors.ts";
import { unixLines } from "./lines.ts";

/** Text, or the ids of its tokens. */
export type Document = string | readonly number[];

export interface Documents {
  readonly documents: readonly Document[];
  /** The file is one running text, to be cut anywhere, instead of documents that each stand alone. */
  readonly running: boolean;
}

/** More is not read: enough for 4096 sequences of 2048 tokens. */
const MAX_BYTES = 64 << 20;
/** Files and folders that a dataset may have. */
const MAX_ENTRIES = 100_000;

const READERS: Readonly<Record<string, (text: string, file: ReadFile) => Document[]>> = {
  ".txt": (text) => [text],
  ".jsonl": linesOf,
  ".json": valuesOf,
};
const IMAGES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"];
const PARAM = "calibration.text";

interface ReadFile {
  readonly path: string;
  /** Whether {@linkcode MAX_BYTES} may have cut it off. */
  readonly cut: boolean;
}

/**
 * The documents of a .jsonl (one a line: a string, `{"text": ...}` or an array of token ids) or .json file (an array of
 * them), of any other file (a running text), or of all .txt, .jsonl and .json files of a folder and the folders in it, in
 * the order of their names; links are not followed. Of more than 64 MiB the first are read.
 *
 * @throws {OatmillError} invalid_recipe: what is there cannot be read; unsupported_format: images
 */
export async function readDocuments(path: string): Promise<Documents> {
  refuseImages([path], path);
  const info = await reading(path, () => Deno.stat(path));
  if (info.isDirectory) return { documents: await readFolder(path), running: false };
  const { text, cut } = await readText(path, PARAM);
  const read = READERS[extname(path)];
  if (!read || extname(path) === ".txt") return { documents: [text], running: true };
  return { documents: read(text, { path, cut }), running: false };
}

async function readFolder(folder: string): Promise<Document[]> {
  const files = await filesOf(folder);
  const texts = files.filter((path) => extname(path) in READERS);
  if (texts.length === 0) {
    refuseImages(files, folder);
    throw refused(`Cannot calibrate on "${folder}": it has no .txt, .jsonl or .json file`);
  }
  const documents: Document[] = [];
  let left = MAX_BYTES;
  for (const path of texts) {
    if (left <= 0) break;
    const { text, cut, bytes } = await readText(path, PARAM, left);
    if (cut && extname(path) === ".json" && documents.length > 0) break; // it can only be read whole
    left -= bytes;
    for (const document of READERS[extname(path)](text, { path, cut })) documents.push(document);
  }
  return documents;
}

/**
 * Regular files below a folder, sorted by path.
 * @param param the field of the recipe that names the folder
 * @throws {OatmillError} invalid_recipe
 */
export async function filesOf(folder: string, param = PARAM): Promise<string[]> {
  const files: string[] = [], waiting = [folder];
  for (let entries = 0; waiting.length > 0;) {
    const current = waiting.pop()!;
    const read = async () => {
      for await (const { name, isFile, isDirectory } of Deno.readDir(current)) {
        if (++entries > MAX_ENTRIES) {
          throw refused(`Cannot calibrate on "${folder}": it has more than ${MAX_ENTRIES} files and folders`);
        }
        if (isFile) files.push(join(current, name));
        else if (isDirectory) waiting.push(join(current, name));
      }
    };
    await reading(folder, read, param);
  }
  return files.sort();
}

/** @throws {OatmillError} unsupported_format when one of the files is an image */
function refuseImages(paths: readonly string[], source: string): void {
  if (!paths.some((path) => IMAGES.includes(extname(path).toLowerCase()))) return;
  throw new OatmillError(
    "unsupported_format",
    `Cannot calibrate on "${source}": images are for models that read them; use text or "self"`,
    PARAM,
  );
}

function linesOf(text: string, { path, cut }: ReadFile): Document[] {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.flatMap((line, i) => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      if (cut && i === lines.length - 1) return [];
      throw refused(`Cannot read "${path}": line ${i + 1} is not JSON`, cause);
    }
    return [documentOf(value, `Cannot read "${path}": line ${i + 1}`)];
  });
}

function valuesOf(text: string, { path, cut }: ReadFile): Document[] {
  if (cut) throw refused(`Cannot read "${path}": .json files may have ${MAX_BYTES >> 20} MiB, use .jsonl`);
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (cause) {
    throw refused(`Cannot read "${path}": it is not JSON`, cause);
  }
  if (!Array.isArray(values)) throw refused(`Cannot read "${path}": it must be an array of documents`);
  return values.map((value, i) => documentOf(value, `Cannot read "${path}": document ${i + 1}`));
}

/** @throws {OatmillError} invalid_recipe: the value is no document */
function documentOf(value: unknown, where: string): Document {
  if (typeof value === "string") return value;
  if (isIds(value)) return value;
  const text = (value as { text?: unknown } | null)?.text;
  if (typeof text === "string") return text;
  throw refused(`${where} has no "text" string and is no array of token ids`);
}

const isIds = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((id) => Number.isSafeInteger(id) && id >= 0);

/** @param param the field of the recipe that names the file */
export async function readText(
  path: string,
  param: string,
  maxBytes = MAX_BYTES,
): Promise<{ readonly text: string; readonly cut: boolean; readonly bytes: number }> {
  return await reading(path, async () => {
    using file = await Deno.open(path);
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let bytes = 0;
    while (bytes < maxBytes) {
      const buffer = new Uint8Array(Math.min(1 << 20, maxBytes - bytes));
      const n = await file.read(buffer);
      if (n === null) break;
      parts.push(buffer.subarray(0, n));
      bytes += n;
    }
    return { text: unixLines(await new Blob(parts).text()), cut: bytes >= maxBytes, bytes };
  }, param);
}

async function reading<T>(path: string, work: () => Promise<T>, param = PARAM): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof OatmillError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OatmillError("invalid_recipe", `Cannot read text "${path}": ${reason}`, param, { cause });
  }
}

const refused = (message: string, cause?: unknown) =>
  new OatmillError("invalid_recipe", message, PARAM, cause === undefined ? undefined : { cause });
