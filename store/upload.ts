/** Uploaded files: which names are taken, and how their bytes reach the disk (streamed, hashed, fsynced). */
import { createHash } from "node:crypto";
import { OatmillError } from "../errors.ts";
import { asStorageError } from "./data_folder.ts";

export type UploadKind = "archive" | "gguf" | "onnx" | "onnx_data" | "folder" | "text" | "image";

/** Files of a Hugging Face folder that are read, besides its `.safetensors`. */
const FOLDER_FILES: ReadonlySet<string> = new Set([
  "config.json",
  "generation_config.json",
  "preprocessor_config.json",
  "model.safetensors.index.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "modules.json",
]);
const EXTENSIONS: readonly (readonly [suffix: string, kind: UploadKind])[] = [
  [".tar.gz", "archive"],
  [".tgz", "archive"],
  [".tar", "archive"],
  [".zip", "archive"],
  [".gguf", "gguf"],
  [".onnx", "onnx"],
  // Values beside a graph, as PyTorch's exporters name the file.
  [".onnx.data", "onnx_data"],
  [".onnx_data", "onnx_data"],
  [".safetensors", "folder"],
  [".txt", "text"],
  [".jsonl", "text"],
  [".png", "image"],
  [".jpg", "image"],
  [".jpeg", "image"],
  [".webp", "image"],
];

/**
 * What a file of this name is. The name becomes a name on disk only when it is a plain one: letters, digits, `.`, `_`,
 * `-`, no leading dot, at most 128 characters; never a path.
 * @throws {OatmillError} unsupported_format
 */
export function uploadKind(name: string): UploadKind {
  if (FOLDER_FILES.has(name)) return "folder";
  const plain = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/.test(name) && !name.includes("..");
  const kind = plain ? EXTENSIONS.find(([suffix]) => name.endsWith(suffix))?.[1] : undefined;
  if (kind !== undefined) return kind;
  const shown = JSON.stringify(name.slice(0, 100));
  throw new OatmillError(
    "unsupported_format",
    `Cannot take the file ${shown}: send the files of a Hugging Face folder (${
      [...FOLDER_FILES].join(", ")
    }, ` +
      `*.safetensors), a .gguf file, an .onnx file (with its .onnx.data or .onnx_data), an archive (.tar, .tar.gz, .tgz, .zip) or what to calibrate on (.txt, .jsonl, .png, .jpg, .jpeg, .webp)`,
    "files",
  );
}

export interface ByteQuota {
  /** @throws {OatmillError} for bytes that are too many */
  take(bytes: number): void;
}

/** What all files of an upload may take together, however many are being written at once. */
export class UploadQuota implements ByteQuota {
  #bytes = 0;
  constructor(readonly maxBytes: number, readonly param: string = "files") {}

  /** @throws {OatmillError} too_large */
  take(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes <= this.maxBytes) return;
    throw new OatmillError("too_large", `Upload exceeds the allowed ${this.maxBytes} bytes`, this.param);
  }
}

/** Writes a new file chunk by chunk. @throws {OatmillError} too_large, storage_failed */
export async function storeStream(
  chunks: AsyncIterable<Uint8Array>,
  path: string,
  quota: ByteQuota,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  try {
    using file = await Deno.open(path, { write: true, createNew: true });
    for await (const chunk of chunks) {
      quota.take(chunk.byteLength);
      bytes += chunk.byteLength;
      hash.update(chunk);
      for (let done = 0; done < chunk.byteLength;) done += await file.write(chunk.subarray(done));
    }
    await file.sync();
  } catch (error) {
    throw asStorageError(error, "store the upload");
  }
  return { bytes, sha256: hash.digest("hex") };
}
