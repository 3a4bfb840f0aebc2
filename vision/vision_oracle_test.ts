import assert from "node:assert/strict";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { decodeImage } from "./decode.ts";
import { prepareImage, prepareLevels } from "./prepare.ts";
import { parseProcessorConfig } from "./processor_config.ts";

interface Recorded {
  readonly config: Record<string, unknown>;
  readonly images: Record<string, { readonly shape: number[]; readonly levels_0_255: number[] }>;
}

/** JPEG decoders differ by a level or two; libjpeg is the one PIL has, so here none does. */
const SAME_LEVELS = 0;

oracleTest(
  "prepareLevels() gives PIL's levels for every processor and file",
  "oracles/preprocess",
  async () => {
    const folder = shared("oracles/preprocess/");
    const recorded = JSON.parse(await Deno.readTextFile(new URL("expected.json", folder)));
    const processors: [string, Recorded][] = Object.entries(recorded as Record<string, Recorded>)
      .filter(([name]) => name !== "about" && name !== "files");
    assert.equal(processors.length, 4);
    for (const [name, { config, images }] of processors) {
      for (const [file, { shape, levels_0_255: wanted }] of Object.entries(images)) {
        const image = await decodeImage(await Deno.readFile(new URL(file, folder)), file);
        const got = prepareLevels(image, parseProcessorConfig(config));
        assert.deepEqual([1, 3, got.height, got.width], shape);
        const plane = got.width * got.height;
        const worst = wanted.reduce(
          (most, w, i) => Math.max(most, Math.abs(w - got.data[3 * (i % plane) + Math.floor(i / plane)])),
          0,
        );
        assert.ok(worst <= SAME_LEVELS, `${name}, ${file}: a level differs by ${worst}`);
      }
    }
  },
);

interface EncoderCases {
  readonly input: { readonly mean: number[]; readonly std: number[] };
  readonly cases: Record<string, {
    readonly image: keyof typeof FORMULAS;
    readonly height: number;
    readonly width: number;
    readonly pixel_check: { readonly first8_row0_of_each_channel: number[][]; readonly sum: number };
  }>;
}

const FORMULAS = {
  ramp: (c: number, y: number, x: number) => 7 * c + 13 * y + 29 * x,
  quad: (c: number, y: number, x: number) => (c + 1) * (3 * y * y + 5 * x * y + 11 * x + 17),
  black: () => 0,
};
/** Of a few thousand values of about 1, in float32. */
const SUM_TOLERANCE = 0.01;

for (const family of ["vit", "deit_distilled", "dinov2", "dinov2_registers", "clip_vision"]) {
  oracleTest(
    `prepareImage() gives the pixels that ${family} was recorded with`,
    `oracles/${family}`,
    async () => {
      const { input, cases }: EncoderCases = JSON.parse(
        await Deno.readTextFile(shared(`oracles/${family}/expected.json`)),
      );
      const config = { resize: null, crop: null, rescale: 1 / 255, normalize: input };
      for (const { image, height, width, pixel_check: wanted } of Object.values(cases)) {
        const level = (i: number) =>
          FORMULAS[image](i % 3, Math.floor(i / 3 / width), Math.floor(i / 3) % width);
        const data = Uint8Array.from({ length: 3 * width * height }, (_, i) => level(i));
        const pixels = prepareImage({ width, height, data }, config).data;
        for (const [c, row] of wanted.first8_row0_of_each_channel.entries()) {
          const got = pixels.subarray(c * width * height, c * width * height + 8);
          assert.ok(got.every((v, x) => Math.abs(v - row[x]) < 1e-6), `channel ${c}`);
        }
        assert.ok(Math.abs(pixels.reduce((a, b) => a + b, 0) - wanted.sum) < SUM_TOLERANCE);
      }
    },
  );
}
