/** Multipart uploads, streamed: files go to disk as they arrive (store/upload.ts), fields are short strings. */
import { Readable } from "node:stream";
import { dirname, join } from "node:path";
import { Busboy, type BusboyFileStream, type BusboyInstance } from "@fastify/busboy";
import { OatmillError } from "../errors.ts";
import { chunksOf } from "./request_body.ts";
import { type ByteQuota, storeStream, UploadQuota } from "../store/upload.ts";
import type { JobFile } from "../store/job_store.ts";

export interface UploadedFile extends JobFile {
  readonly path: string;
}
export interface Upload {
  readonly fields: ReadonlyMap<string, string>;
  readonly files: readonly UploadedFile[];
}
export interface MultipartOptions {
  /** Existing folder that the files go into. */
  readonly folder: string;
  readonly fields: readonly string[];
  /** Name of the file parts. */
  readonly fileField: string;
  readonly maxBytes: number;
  readonly maxFiles: number;
  /** What counts the files' bytes too. */
  readonly quota?: ByteQuota;
  /** Where a file of this name goes, below the folder. @throws {OatmillError} for a name that is not taken */
  readonly place: (name: string) => string;
}

const MAX_FIELD_BYTES = 64 * 1024;

/**
 * Reads a whole multipart body.
 * @throws {OatmillError} unsupported_media_type, invalid_request, unsupported_format (names), too_large, storage_failed
 */
export function receiveMultipart(request: Request, options: MultipartOptions): Promise<Upload> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data\s*;/i.test(type)) {
    throw new OatmillError("unsupported_media_type", "Send the files as multipart/form-data");
  }
  if (!request.body) throw invalid("The body is empty");
  // What is too long by its own account is refused before it is read; the parts' headers may take 1 MiB.
  new UploadQuota(options.maxBytes, options.fileField).take(
    Number(request.headers.get("content-length") ?? 0) - 2 ** 20,
  );
  return new Receiver(request.body, type, options).result;
}

class Receiver {
  readonly result: Promise<Upload>;
  readonly #options: MultipartOptions;
  readonly #fields = new Map<string, string>();
  readonly #files: Promise<UploadedFile>[] = [];
  readonly #names = new Set<string>();
  readonly #open = new Set<BusboyFileStream>();
  readonly #quota: ByteQuota;

  constructor(body: ReadableStream<Uint8Array<ArrayBuffer>>, type: string, options: MultipartOptions) {
    this.#options = options;
    const upload = new UploadQuota(options.maxBytes, options.fileField);
    this.#quota = {
      take(bytes) {
        upload.take(bytes);
        options.quota?.take(bytes);
      },
    };
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const source = Readable.from(chunksOf(body, { maxBytes: Infinity })); // the quota counts
    const parser = makeParser(type, options.maxFiles);
    const fail = (error: Error) => {
      reject(
        error instanceof OatmillError ? error : invalid(`Cannot read the multipart body: ${error.message}`),
      );
      source.destroy();
      for (const file of this.#open) file.destroy(error);
    };
    parser.on(
      "field",
      (name, value, _nameTruncated, valueTruncated) =>
        this.#guard(fail, () => this.#field(name, value, valueTruncated)),
    );
    // A part without a name or filename gives undefined, whatever the types say.
    parser.on("file", (field = "", stream, name = "") => {
      stream.on("error", () => {}); // its reader hears it too
      this.#guard(fail, () => {
        const file = this.#file(field, stream, name);
        file.catch(fail);
        this.#files.push(file);
      });
    });
    parser.on(
      "filesLimit",
      () =>
        fail(
          new OatmillError("too_large", `Cannot take more than ${options.maxFiles} files`, options.fileField),
        ),
    );
    parser.on("fieldsLimit", () => fail(invalid("Cannot take so many fields")));
    parser.on("error", (error) => fail(error as Error));
    parser.on("finish", () => resolve());
    source.on("error", fail);
    source.pipe(parser);
    this.result = promise.then(() => Promise.all(this.#files)).then((files) => ({
      fields: this.#fields,
      files,
    }));
  }

  #guard(fail: (error: Error) => void, work: () => void): void {
    try {
      work();
    } catch (error) {
      fail(error as Error);
    }
  }
  #field(name: string, value: string, truncated: boolean): void {
    if (!this.#options.fields.includes(name)) return; // unknown fields are ignored, as in JSON bodies
    if (truncated) {
      throw new OatmillError("too_large", `Field "${name}" exceeds ${MAX_FIELD_BYTES} bytes`, name);
    }
    if (this.#fields.has(name)) throw invalid(`Field "${name}" is there twice`, name);
    this.#fields.set(name, value);
  }
  async #file(field: string, stream: BusboyFileStream, name: string): Promise<UploadedFile> {
    const { folder, fileField, place } = this.#options;
    if (field !== fileField) {
      throw invalid(`Send files in the field "${fileField}", not "${field.slice(0, 100)}"`, fileField);
    }
    const path = join(folder, place(name));
    if (this.#names.has(name)) throw invalid(`File "${name}" is there twice`, fileField);
    this.#names.add(name);
    this.#open.add(stream);
    try {
      await Deno.mkdir(dirname(path), { recursive: true });
      return { name, path, ...await storeStream(stream, path, this.#quota) };
    } finally {
      this.#open.delete(stream);
    }
  }
}

function makeParser(type: string, maxFiles: number): BusboyInstance {
  try {
    return new Busboy({
      headers: { "content-type": type },
      preservePath: true, // a path in a name is refused, not cut
      limits: {
        files: maxFiles,
        fields: 32,
        fieldSize: MAX_FIELD_BYTES,
        fieldNameSize: 100,
        headerPairs: 32,
      },
    });
  } catch (error) {
    throw invalid(`Cannot read the multipart body: ${(error as Error).message}`);
  }
}

const invalid = (message: string, param: string | null = null) =>
  new OatmillError("invalid_request", message, param);
