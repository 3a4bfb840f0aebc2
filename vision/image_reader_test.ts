import assert from "node:assert/strict";
import { decodeImage } from "./decode.ts";
import { ImageReader } from "./image_reader.ts";
import { prepareImage } from "./prepare.ts";
import { parseProcessorConfig } from "./processor_config.ts";

const config = parseProcessorConfig({ size: 32 });
const bytesOf = (name: string) => Deno.readFile(new URL(`testing/images/${name}`, import.meta.url));

Deno.test("ImageReader gives the pixels of each image to who asked for them, and errors as they were", async () => {
  const reader = new ImageReader();
  try {
    const names = ["lossy.webp", "palette.png", "progressive.jpg"];
    const files = await Promise.all(names.map(bytesOf));
    const broken = reader.read(files[1].subarray(0, 200), { config, name: "half.png" });
    const all = files.map((bytes, i) => reader.read(bytes, { config, name: names[i] }));
    await assert.rejects(broken, { code: "invalid_image", message: /half\.png as PNG: it is truncated/ });
    for (const [i, pixels] of (await Promise.all(all)).entries()) {
      assert.deepEqual(pixels, prepareImage(await decodeImage(files[i]), config));
    }
    assert.throws(() => reader.read(new Uint8Array(9), { config }), { code: "unsupported_format" });
  } finally {
    reader.close();
  }
});

Deno.test("ImageReader.close() refuses who still waits and who comes later", async () => {
  const reader = new ImageReader(), bytes = await bytesOf("lossy.webp");
  const waiting = [reader.read(bytes, { config }), reader.read(bytes, { config })];
  await new Promise((done) => setTimeout(done));
  reader.close();
  for (const one of [...waiting, reader.read(bytes, { config })]) {
    await assert.rejects(one, { code: "unavailable" });
  }
});
