/**
 * What an image file says of itself before anything is decoded: format, size, orientation. Every image is measured here
 * first, so that a small file that unpacks to gigabytes is refused at the cost of its header.
 */
import { OatmillError } from "../errors.ts";
import { readJpegHeader } from "./_jpeg_header.ts";
import { readPngHeader } from "./_png_header.ts";
import { readWebpHeader } from "./_webp_header.ts";

export type ImageFormat = "jpeg" | "png" | "webp";

/** What a format's own reader finds; null stands for a header that ends early. */
export interface HeaderFields {
  readonly width: number;
  readonly height: number;
  /** EXIF's: 1 as stored, 2 to 8 mirrored or turned. */
  readonly orientation: number;
  /** Why the decoder cannot read it, although it is a sound file. */
  readonly unsupported?: string;
}
export interface ImageHeader extends HeaderFields {
  readonly format: ImageFormat;
}

/** A phone's 24 megapixels pass; decoded they are 100 MB, once in the decoder and once outside. */
export const MAX_PIXELS = 25_000_000;
/** Of one file; 25 megapixels of noise as JPEG take no more. */
export const MAX_IMAGE_BYTES = 20 * 2 ** 20;

const READERS: Record<ImageFormat, (bytes: Uint8Array) => HeaderFields | null> = {
  jpeg: readJpegHeader,
  png: readPngHeader,
  webp: readWebpHeader,
};

/** By its first bytes, whatever its name says; null for another format. */
export function imageFormat(bytes: Uint8Array): ImageFormat | null {
  const starts = (text: string, at = 0) => [...text].every((c, i) => bytes[at + i] === c.charCodeAt(0));
  if (starts("\xff\xd8\xff")) return "jpeg";
  if (starts("\x89PNG\r\n\x1a\n")) return "png";
  return starts("RIFF") && starts("WEBP", 8) ? "webp" : null;
}

/**
 * @param name what messages call the image
 * @throws {OatmillError} unsupported_format: no JPEG, PNG or WebP, or a kind of it that is not read; too_large: past
 *   {@linkcode MAX_IMAGE_BYTES} or {@linkcode MAX_PIXELS}; invalid_image: broken header, no pixels
 */
export function readImageHeader(bytes: Uint8Array, name = "the image"): ImageHeader {
  if (bytes.length > MAX_IMAGE_BYTES) {
    throw new OatmillError(
      "too_large",
      `Cannot read ${name}: it has ${bytes.length} bytes, at most ${MAX_IMAGE_BYTES} are read`,
    );
  }
  const format = imageFormat(bytes);
  if (!format) {
    throw new OatmillError("unsupported_format", `Cannot read ${name}: it must be a JPEG, PNG or WebP file`);
  }
  const header = READERS[format](bytes);
  if (!header) throw brokenImage(name, format, "its header ends early or is no header");
  const { width, height, unsupported } = header;
  if (width < 1 || height < 1) throw brokenImage(name, format, `it is ${width} x ${height} pixels`);
  if (width * height > MAX_PIXELS) {
    throw new OatmillError(
      "too_large",
      `Cannot read ${name}: it is ${width} x ${height} pixels, at most ${MAX_PIXELS} in all are decoded; scale it down`,
    );
  }
  if (unsupported) throw new OatmillError("unsupported_format", `Cannot read ${name}: ${unsupported}`);
  return { ...header, format };
}

export const brokenImage = (
  name: string,
  format: ImageFormat,
  what: string,
  cause?: unknown,
): OatmillError =>
  new OatmillError("invalid_image", `Cannot read ${name} as ${NAMES[format]}: ${what}`, null, { cause });

const NAMES: Record<ImageFormat, string> = { jpeg: "JPEG", png: "PNG", webp: "WebP" };
