/** Zip archives, by their central directory: what other unpackers would see is what is checked. */
import type { Readable } from "node:stream";
import { crc32 } from "node:zlib";
// @ts-types="@types/yauzl"
import yauzl from "yauzl";
import { refuse } from "./archive_name.ts";
import type { ArchiveTarget } from "./archive_target.ts";

/** Unix file types in the upper half of the attributes. */
const TYPE_MASK = 0o170000, REGULAR = 0o100000, FOLDER = 0o040000;

export async function extractZip(path: string, target: ArchiveTarget): Promise<void> {
  // Names are checked by the target; yauzl counts that an entry yields the bytes it claims.
  const zip = await yauzl.openPromise(path, {
    lazyEntries: true,
    autoClose: false,
    validateEntrySizes: true,
  });
  try {
    for await (const entry of zip.eachEntry()) await extractEntry(zip, entry, target);
  } finally {
    zip.close();
  }
}

async function extractEntry(zip: yauzl.ZipFile, entry: yauzl.Entry, target: ArchiveTarget): Promise<void> {
  const name = entry.fileName;
  const type = (entry.externalFileAttributes >>> 16) & TYPE_MASK;
  if (type !== 0 && type !== REGULAR && type !== FOLDER) {
    throw refuse(name, "it is a link or a device (symlink), only files and folders are allowed");
  }
  if (entry.isEncrypted()) throw refuse(name, "it is encrypted");
  if (name.endsWith("/")) return await target.addFolder(name);
  const stream = await zip.openReadStreamPromise(entry);
  // It may fail before the target reads it; an error that nobody hears would end the process. Reading on rejects with it.
  stream.on("error", (error) => stream.destroy(error));
  await target.addFile(name, checked(stream, entry), entry.uncompressedSize);
}

/** Passes the bytes on and compares their checksum at the end. */
async function* checked(stream: Readable, entry: yauzl.Entry): AsyncGenerator<Uint8Array> {
  let sum = 0;
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    sum = crc32(chunk, sum);
    yield chunk;
  }
  if (sum !== entry.crc32) throw refuse(entry.fileName, "the checksum of its data in the zip is wrong");
}
