/** A WebP's RIFF chunks (RFC 9649): size, orientation, and the first frame of an animation as a file of its own. */
import { exifOrientation } from "./_exif.ts";
import type { HeaderFields } from "./image_header.ts";

interface Chunk {
  readonly type: string;
  readonly body: Uint8Array;
}
interface Size {
  readonly width: number;
  readonly height: number;
}
/** An animation's first frame: where it lies in the canvas, and the frame as a WebP file. */
export interface FirstFrame {
  readonly canvas: Size;
  readonly x: number;
  readonly y: number;
  readonly file: Uint8Array;
}

const RIFF_BYTES = 12;
const FRAME_HEADER_BYTES = 16;

export function readWebpHeader(bytes: Uint8Array): HeaderFields | null {
  if (bytes.length < RIFF_BYTES || 8 + riffBytes(bytes) > bytes.length) return null;
  let size: Size | null = null, orientation = 1;
  for (const { type, body } of chunks(bytes, RIFF_BYTES)) {
    const found = type === "ANMF" ? frameSize(body) : SIZES[type]?.(body);
    if (found === null) return null;
    if (found) size = larger(size, found);
    if (type === "EXIF") orientation = exifOrientation(withoutPrefix(body));
  }
  return size && { ...size, orientation };
}

/** @returns null for a still image */
export function firstFrame(bytes: Uint8Array): FirstFrame | null {
  const [head, ...rest] = chunks(bytes, RIFF_BYTES);
  const frame = rest.find(({ type }) => type === "ANMF");
  const canvas = head?.type === "VP8X" ? SIZES.VP8X(head.body) : null;
  if (!frame || !canvas || frame.body.length < FRAME_HEADER_BYTES) return null;
  const image = [...chunks(frame.body, FRAME_HEADER_BYTES)].find(({ type }) => type !== "ALPH");
  if (!image) return null;
  // Its transparency is left out: what follows reads colours alone, as convert("RGB") does.
  return { canvas, x: 2 * uint24(frame.body, 0), y: 2 * uint24(frame.body, 3), file: stillImage(image) };
}

const riffBytes = (bytes: Uint8Array) =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(4, true);

/** A chunk that says it is longer than the file gets what there is. */
function* chunks(bytes: Uint8Array, from: number): Generator<Chunk> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = from; at + 8 <= bytes.length;) {
    const length = view.getUint32(at + 4, true);
    const type = String.fromCharCode(...bytes.subarray(at, at + 4)).trimEnd();
    yield { type, body: bytes.subarray(at + 8, at + 8 + length) };
    at += 8 + length + (length & 1);
  }
}

const uint24 = (b: Uint8Array, at: number) => b[at] + b[at + 1] * 256 + b[at + 2] * 65536;
const larger = (a: Size | null, b: Size): Size =>
  a ? { width: Math.max(a.width, b.width), height: Math.max(a.height, b.height) } : b;

/** By the chunk that says it; null where it does not hold what it must. */
const SIZES: Record<string, (body: Uint8Array) => Size | null> = {
  VP8X: (b) => b.length < 10 ? null : { width: 1 + uint24(b, 4), height: 1 + uint24(b, 7) },
  VP8: (b) => {
    const isKeyFrame = b.length >= 10 && b[3] === 0x9d && b[4] === 0x01 && b[5] === 0x2a;
    return isKeyFrame ? { width: (b[6] + 256 * b[7]) & 0x3fff, height: (b[8] + 256 * b[9]) & 0x3fff } : null;
  },
  VP8L: (b) => {
    if (b.length < 5 || b[0] !== 0x2f) return null;
    const bits = uint24(b, 1) + b[4] * 2 ** 24;
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
  },
};

/** What the frame says of itself, and its image of itself: a decoder would believe the second. */
function frameSize(body: Uint8Array): Size | null {
  if (body.length < FRAME_HEADER_BYTES) return null;
  let size: Size = { width: 1 + uint24(body, 6), height: 1 + uint24(body, 9) };
  for (const { type, body: inner } of chunks(body, FRAME_HEADER_BYTES)) {
    const found = SIZES[type]?.(inner);
    if (found === null) return null;
    if (found) size = larger(size, found);
  }
  return size;
}

/** Some writers put JPEG's prefix before the TIFF data. */
const withoutPrefix = (exif: Uint8Array) => exif[0] === 0x45 ? exif.subarray(6) : exif;

function stillImage({ type, body }: Chunk): Uint8Array {
  const padded = body.length + (body.length & 1);
  const file = new Uint8Array(RIFF_BYTES + 8 + padded), view = new DataView(file.buffer);
  const text = (at: number, s: string) => file.set(new TextEncoder().encode(s), at);
  text(0, "RIFF");
  view.setUint32(4, 4 + 8 + padded, true);
  text(8, "WEBP" + type.padEnd(4));
  view.setUint32(16, body.length, true);
  file.set(body, RIFF_BYTES + 8);
  return file;
}
