import assert from "node:assert/strict";
import type { RgbImage } from "./rgb_image.ts";
import { prepareImage, prepareLevels } from "./prepare.ts";
import { parseProcessorConfig, type ProcessorConfig } from "./processor_config.ts";

const AS_IS: ProcessorConfig = { resize: null, crop: null, rescale: null, normalize: null };
/** Red counts the pixels, green and blue are 10 and 20 more. */
function counting(width: number, height: number): RgbImage {
  const data = Uint8Array.from({ length: 3 * width * height }, (_, i) => Math.floor(i / 3) + 10 * (i % 3));
  return { width, height, data };
}
const reds = ({ data }: RgbImage) => [...data].filter((_, i) => i % 3 === 0);

Deno.test("prepareImage() rescales and normalises each channel into its own plane", () => {
  const config = { ...AS_IS, rescale: 1 / 255, normalize: { mean: [0, 0.5, 0.25], std: [1, 0.5, 2] } };
  const { width, height, data } = prepareImage(counting(2, 1), config);
  assert.deepEqual([width, height], [2, 1]);
  const wanted = [
    [0, 1 / 255],
    [10, 11].map((v) => (v / 255 - 0.5) / 0.5),
    [20, 21].map((v) => (v / 255 - 0.25) / 2),
  ];
  assert.deepEqual([...data], [...Float32Array.from(wanted.flat())]);
  assert.deepEqual([...prepareImage(counting(1, 1), AS_IS).data], [0, 10, 20]);
});

Deno.test("prepareLevels() crops the middle, and fills up with black what is too small", () => {
  const crop = (width: number, height: number) => ({ ...AS_IS, crop: { width, height } });
  assert.deepEqual(reds(prepareLevels(counting(4, 3), crop(2, 1))), [5, 6]);
  assert.deepEqual(reds(prepareLevels(counting(5, 1), crop(2, 1))), [1, 2]);
  assert.deepEqual(reds(prepareLevels(counting(2, 2), crop(3, 3))), [0, 0, 0, 0, 0, 1, 0, 2, 3]);
  assert.deepEqual(reds(prepareLevels(counting(4, 1), crop(2, 2))), [0, 0, 1, 2]);
});

Deno.test("prepareLevels() resizes the shorter edge and keeps proportions, rounded down", () => {
  const sized = (w: number, h: number, to: { shortestEdge: number; longestEdge?: number }) => {
    const { width, height } = prepareLevels(counting(w, h), { ...AS_IS, resize: { to, how: "nearest" } });
    return [width, height];
  };
  assert.deepEqual(sized(53, 37, { shortestEdge: 48 }), [68, 48]);
  assert.deepEqual(sized(10, 30, { shortestEdge: 7 }), [7, 21]);
  assert.deepEqual(sized(10, 30, { shortestEdge: 7, longestEdge: 12 }), [4, 12]);
  const thin = { code: "invalid_image", message: /3 x 20000.*4096/ };
  assert.throws(() => sized(3, 20_000, { shortestEdge: 224 }), thin);
});

Deno.test("prepareImage() refuses an image that a config without a resize leaves too large", () => {
  assert.throws(() => prepareImage(counting(5000, 1), AS_IS), { code: "invalid_image" });
});

Deno.test("parseProcessorConfig() reads today's layout, older ones, nulls and defaults", () => {
  const vit = parseProcessorConfig({});
  assert.deepEqual(vit, {
    resize: { to: { width: 224, height: 224 }, how: "bilinear" },
    crop: null,
    rescale: 1 / 255,
    normalize: { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] },
  });
  const old = parseProcessorConfig({
    feature_extractor_type: "DeiTFeatureExtractor",
    size: 40,
    crop_size: 32,
    resample: 3,
  });
  assert.deepEqual(old.resize, { to: { width: 40, height: 40 }, how: "bicubic" });
  assert.deepEqual(old.crop, { width: 32, height: 32 });
  const clip = parseProcessorConfig({
    image_processor_type: "CLIPImageProcessorFast",
    size: 48,
    crop_size: null,
  });
  assert.deepEqual(clip.resize!.to, { shortestEdge: 48 });
  assert.deepEqual(clip.crop, { width: 224, height: 224 });
  const bare = { do_resize: false, do_center_crop: null, do_rescale: false, do_normalize: false };
  assert.deepEqual(parseProcessorConfig(bare), AS_IS);
});

Deno.test("parseProcessorConfig() refuses what it does not know, naming the field", () => {
  const refused: [Record<string, unknown>, string, RegExp][] = [
    [{ image_processor_type: "ConvNextImageProcessor" }, "unsupported_architecture", /ConvNext.*ViTImage/],
    [{ image_processor_type: "constructor" }, "unsupported_architecture", /constructor/],
    [{ size: { height: 1e9, width: 1 } }, "invalid_config", /size/],
    [{ size: { longest_edge: 3 } }, "invalid_config", /size/],
    [{ image_std: [0, 1, 1] }, "invalid_config", /image_std/],
    [{ image_mean: [0.5] }, "invalid_config", /image_mean/],
    [{ resample: 9 }, "invalid_config", /resample/],
    [{ do_resize: "yes" }, "invalid_config", /do_resize/],
  ];
  for (const [config, code, message] of refused) {
    assert.throws(() => parseProcessorConfig(config), { code, message });
  }
});
