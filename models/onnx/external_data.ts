/** Values that lie in files beside an .onnx file, brought into the model: what runs it later reads no file at all. */
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";
import { entrySegments } from "../formats/archive_name.ts";
import { RandomAccessFile } from "../formats/random_access_file.ts";
import type { TensorProto } from "./onnx_proto.ts";
import { byteSize, withRawData } from "./tensor_values.ts";

/** TensorProto.DataLocation */
const EXTERNAL = 1;

export const isExternal = ({ dataLocation, externalData }: TensorProto): boolean =>
  dataLocation === EXTERNAL || externalData.length > 0;

/** Reads external values; one file stays open at a time for each name. */
export class ExternalData implements Disposable {
  readonly #files = new Map<string, RandomAccessFile>();
  #left: number;

  /**
   * @param folder of the .onnx file
   * @param maxBytes of all values together
   */
  constructor(readonly folder: string, readonly maxBytes: number) {
    this.#left = maxBytes;
  }

  /** The tensor with its values. @throws {OatmillError} invalid_checkpoint, unsupported_format, too_large */
  async read(tensor: TensorProto): Promise<TensorProto> {
    const entries = new Map(tensor.externalData.map(({ key, value }) => [key, value]));
    const location = entries.get("location") ?? "";
    const bad = (why: string) =>
      new OatmillError(
        "invalid_checkpoint",
        `Cannot read the external data of initializer "${tensor.name.slice(0, 200)}" in file ${
          JSON.stringify(location.slice(0, 100))
        }: ${why}`,
      );
    const number = (key: string, otherwise: number) => {
      const text = entries.get(key) ?? String(otherwise), value = Number(text);
      if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
      throw bad(`its ${key} ${JSON.stringify(text.slice(0, 40))} is no whole number of bytes`);
    };
    const bytes = byteSize(tensor), offset = number("offset", 0), length = number("length", bytes);
    if (length !== bytes) throw bad(`its length is ${length}, its dims ask for ${bytes} bytes`);
    const file = await this.#open(location, bad);
    if (offset + length > file.sizeBytes) {
      throw bad(`it ends at byte ${offset + length}, the file has a size of ${file.sizeBytes}`);
    }
    this.#left -= length;
    if (this.#left < 0) {
      throw new OatmillError("too_large", bad(`all values together exceed ${this.maxBytes} bytes`).message);
    }
    return withRawData(tensor, await file.read(offset, length));
  }

  async #open(location: string, bad: (why: string) => OatmillError): Promise<RandomAccessFile> {
    const known = this.#files.get(location);
    if (known) return known;
    const file = await RandomAccessFile.open(join(this.folder, ...segmentsOf(location, bad)))
      .catch((cause) => {
        if (!(cause instanceof OatmillError)) throw cause;
        throw bad("it is missing, or no regular file");
      });
    this.#files.set(location, file);
    return file;
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file.close();
  }
}

/** Nothing outside the folder is even looked for. */
function segmentsOf(location: string, bad: (why: string) => OatmillError): string[] {
  let segments: string[];
  try {
    segments = entrySegments(location);
  } catch {
    throw bad("the path must stay in the model's folder");
  }
  if (segments.length === 0) throw bad("there is no path");
  return segments;
}
