/** A JPEG's markers up to its first scan (ITU T.81, B.1 and B.2). */
import { exifOrientation } from "./_exif.ts";
import type { HeaderFields } from "./image_header.ts";

const START_OF_SCAN = 0xda;
const END_OF_IMAGE = 0xd9;
const APP1 = 0xe1;
/** Among the start-of-frame markers C0 to CF these say something else: DHT, JPG, DAC. */
const NO_FRAME = [0xc4, 0xc8, 0xcc];
/** Markers without a length: TEM and RST0 to RST7. */
const isBare = (marker: number) => marker === 0x01 || (marker >= 0xd0 && marker <= 0xd7);
const isFrame = (marker: number) => marker >= 0xc0 && marker <= 0xcf && !NO_FRAME.includes(marker);

export function readJpegHeader(bytes: Uint8Array): HeaderFields | null {
  let frame: HeaderFields | null = null, orientation = 1;
  for (const { marker, body } of segments(bytes)) {
    if (marker === START_OF_SCAN) return frame && { ...frame, orientation, ...tooManyScans(bytes, frame) };
    if (marker === APP1 && startsWithExif(body)) orientation = exifOrientation(body.subarray(6));
    if (isFrame(marker)) {
      frame = readFrame(body);
      if (!frame) return null;
    }
  }
  return null;
}

/** An honest progressive file has about 10 scans; 20 of 25 megapixels decode in some seconds. */
const MAX_SCANNED_PIXELS = 500_000_000;

/** Every scan goes over all pixels, and one takes a few bytes of file. */
function tooManyScans(bytes: Uint8Array, frame: HeaderFields): { unsupported?: string } {
  if (frame.unsupported) return { unsupported: frame.unsupported };
  let scans = 0;
  for (let at = bytes.indexOf(0xff); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    if (bytes[at + 1] === START_OF_SCAN) scans++; // inside a scan 0 follows FF
  }
  if (scans * frame.width * frame.height <= MAX_SCANNED_PIXELS) return {};
  return {
    unsupported: `it goes over its ${frame.width} x ${frame.height} pixels in ${scans} scans; save it again`,
  };
}

function* segments(bytes: Uint8Array): Generator<{ marker: number; body: Uint8Array }> {
  let at = 2;
  while (at + 4 <= bytes.length) {
    if (bytes[at] !== 0xff) return;
    const marker = bytes[at + 1];
    if (marker === 0xff) at++; // fill byte
    else if (isBare(marker)) at += 2;
    else {
      const length = bytes[at + 2] * 256 + bytes[at + 3];
      if (marker === END_OF_IMAGE || length < 2 || at + 2 + length > bytes.length) return;
      yield { marker, body: bytes.subarray(at + 4, at + 2 + length) };
      at += 2 + length;
    }
  }
}

const startsWithExif = (body: Uint8Array) => [..."Exif\0\0"].every((c, i) => body[i] === c.charCodeAt(0));

function readFrame(body: Uint8Array): HeaderFields | null {
  if (body.length < 6) return null;
  const [precision, h1, h0, w1, w0, components] = body;
  return { width: w1 * 256 + w0, height: h1 * 256 + h0, orientation: 1, ...refusal(precision, components) };
}

function refusal(precision: number, components: number): { unsupported?: string } {
  if (precision !== 8) {
    return { unsupported: `it is a JPEG of ${precision} bits a sample; save it with 8 bits` };
  }
  if (components === 1 || components === 3) return {};
  return {
    unsupported: `it is a JPEG of ${components} components (CMYK, as for print); save it as RGB`,
  };
}
