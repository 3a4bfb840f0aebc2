/** A PNG's chunks: IHDR for its size, eXIf for its orientation (PNG specification, third edition, 11.2 and 11.3). */
import { exifOrientation } from "./_exif.ts";
import type { HeaderFields } from "./image_header.ts";

const SIGNATURE_BYTES = 8;
/** Length, type and CRC around each chunk's data. */
const FRAME_BYTES = 12;

export function readPngHeader(bytes: Uint8Array): HeaderFields | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let size: { width: number; height: number } | null = null, orientation = 1;
  for (let at = SIGNATURE_BYTES; at + FRAME_BYTES <= bytes.length;) {
    const length = view.getUint32(at), type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (!size && (type !== "IHDR" || length !== 13 || at + FRAME_BYTES + length > bytes.length)) return null;
    size ??= { width: view.getUint32(at + 8), height: view.getUint32(at + 12) };
    if (type === "eXIf") orientation = exifOrientation(bytes.subarray(at + 8, at + 8 + length));
    at += FRAME_BYTES + length;
  }
  return size && { ...size, orientation };
}
