import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { OatmillError } from "../errors.ts";
import { decodeImage } from "./decode.ts";
import { imageFormat, MAX_IMAGE_BYTES, readImageHeader } from "./image_header.ts";
import type { RgbImage } from "./rgb_image.ts";

const IMAGES = new URL("testing/images/", import.meta.url);
const bytesOf = (name: string) => Deno.readFile(new URL(name, IMAGES));
const hash = ({ data }: RgbImage) => createHash("sha256").update(data).digest("hex");

Deno.test("decodeImage() reads each kind of JPEG, PNG and WebP level for level as PIL does", async () => {
  const { files } = JSON.parse(new TextDecoder().decode(await bytesOf("expected.json")));
  assert.ok(Object.keys(files).length >= 25);
  for (const [name, wanted] of Object.entries(files)) {
    const image = await decodeImage(await bytesOf(name), name);
    assert.deepEqual({ width: image.width, height: image.height, sha256: hash(image) }, wanted, name);
  }
});

Deno.test("decodeImage() takes the upper 8 bits of 16 grey ones, where PIL clips at 255", async () => {
  const { width, data } = await decodeImage(await bytesOf("gray16.png"));
  for (const [x, y] of [[0, 0], [1, 5], [22, 16]]) {
    assert.equal(data[3 * (y * width + x)], ((x * 2711 + y) % 65536) >> 8);
  }
});

Deno.test("decodeImage() refuses truncated files instead of filling them up", async () => {
  const names = [
    "subsampled_420.jpg",
    "progressive.jpg",
    "gray.png",
    "rgb16.png",
    "lossy.webp",
    "animated.webp",
  ];
  for (const name of names) {
    const bytes = await bytesOf(name);
    for (const share of [0.1, 0.5, 0.9, 0.98]) {
      const part = bytes.subarray(0, Math.floor(share * bytes.length));
      await assert.rejects(
        decodeImage(part, name),
        { code: "invalid_image", message: new RegExp(name) },
        `${share}`,
      );
    }
  }
});

Deno.test("readImageHeader() refuses what is no image, too large, without pixels or for print", async () => {
  const cases: [string, Uint8Array, string, RegExp][] = [
    ["text", new TextEncoder().encode("<svg/>"), "unsupported_format", /JPEG, PNG or WebP/],
    ["nothing", new Uint8Array(), "unsupported_format", /must be/],
    ["CMYK", await bytesOf("cmyk.jpg"), "unsupported_format", /save it as RGB/],
    ["bytes", new Uint8Array(MAX_IMAGE_BYTES + 1), "too_large", /at most 20971520/],
    ["bomb", await claiming("gray.png", 16, [0, 1, 0, 0, 0, 1, 0, 0]), "too_large", /65536 x 65536/],
    ["flat", await claiming("gray.png", 16, [0, 0, 0, 0]), "invalid_image", /0 x 17/],
    ["bomb", await claiming("lossy.webp", 26, [0xff, 0x3f, 0xff, 0x3f]), "too_large", /16383 x 16383/],
    ["canvas", await claiming("animated.webp", 24, Array(6).fill(0xff)), "too_large", /16777216/],
    ["bomb", await jpegClaiming(0xffff, 0xffff), "too_large", /65535 x 65535/],
    ["flat", await jpegClaiming(0, 23), "invalid_image", /23 x 0/],
    ["scans", await manyScans(100), "unsupported_format", /5000 x 5000 pixels in 101 scans/],
  ];
  for (const [what, bytes, code, message] of cases) {
    assert.throws(() => readImageHeader(bytes, what), { code, message }, what);
  }
});

async function claiming(name: string, at: number, values: number[]): Promise<Uint8Array> {
  const bytes = await bytesOf(name);
  bytes.set(values, at);
  return bytes;
}

async function jpegClaiming(height: number, width: number): Promise<Uint8Array> {
  const bytes = await bytesOf("gray.jpg");
  const frame = bytes.findIndex((b, i) => b === 0xff && bytes[i + 1] === 0xc0);
  bytes.set([height >> 8, height & 255, width >> 8, width & 255], frame + 5);
  return bytes;
}

async function manyScans(count: number): Promise<Uint8Array> {
  const bytes = await jpegClaiming(5000, 5000);
  return new Uint8Array([...bytes, ...Array(count).fill([0xff, 0xda]).flat()]);
}

Deno.test("decodeImage() answers damaged files with an image or a typed error, never otherwise", async () => {
  const sources = await Promise.all(
    ["subsampled_422.jpg", "orientation_6.jpg", "palette.png", "alpha.webp", "animated_lossy.webp"].map(
      bytesOf,
    ),
  );
  const change = fc.record({
    at: fc.double({ min: 0, max: 0.999, noNaN: true }),
    to: fc.integer({ min: 0, max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...sources),
      fc.array(change, { minLength: 1, maxLength: 6 }),
      async (source, changes) => {
        const bytes = source.slice();
        for (const { at, to } of changes) bytes[Math.floor(at * bytes.length)] = to;
        try {
          const { width, height, data } = await decodeImage(bytes);
          assert.equal(data.length, 3 * width * height);
        } catch (error) {
          assert.ok(error instanceof OatmillError, `${imageFormat(bytes)}: ${error}`);
        }
      },
    ),
    { numRuns: 150 },
  );
});
