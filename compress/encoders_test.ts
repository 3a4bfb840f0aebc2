/** Compression of encoders: what recipes ask of them, and what they refuse. Families are in families_test.ts. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openModel } from "../engine/open_model.ts";
import type { RecipeInput } from "../models/recipe.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { measureInsight } from "./insight/measure.ts";
import { compress } from "./pipeline.ts";

const folder = (name: string) => shared(`oracles/${name}`).pathname;
const IMAGES = folder("preprocess");

async function compressed<T>(
  source: string,
  recipe: RecipeInput,
  then: (result: Awaited<ReturnType<typeof compress>>) => T | Promise<T>,
): Promise<T> {
  const dir = await Deno.makeTempDir();
  try {
    return await then(await compress({ source: folder(source), out: join(dir, "out"), recipe, threads: 1 }));
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

oracleTest(
  "the default recipe compresses an encoder of images and says how its answers differ",
  "oracles",
  () =>
    compressed("dinov2_swiglu", {
      rate: 0.4,
      calibration: { text: IMAGES, sequences: 5 },
      evaluate: { tokens: 64, text: IMAGES },
    }, ({ header }) => {
      const { agreement, layers, recipe, perplexity } = header;
      assert.deepEqual([recipe.allocation.kind, perplexity], ["measured", null]);
      assert.ok(new Set(layers.map(({ rate }) => rate)).size > 1);
      assert.deepEqual([agreement?.inputs, agreement?.sameLabel], [6, null]);
      const [{ name, error }] = agreement!.outputs;
      assert.ok(name === "pooled" && error > 0.01 && error < 0.6, `${name} ${error}`);
    }),
);

oracleTest(
  "a classifier's answers at rate 0 are those of the dense model",
  "oracles",
  () =>
    compressed("deit_distilled", {
      ...{ method: "none", values: "f32" } as const,
      calibration: { text: IMAGES },
    }, async ({ header: { agreement }, artifact }) => {
      assert.equal(agreement?.sameLabel, 1);
      assert.deepEqual(agreement.outputs.map(({ name, error }) => [name, error < 1e-5]), [
        ["pooled", true],
        ["logits", true],
      ]);
      const { encoder, engine } = await openModel(artifact, { threads: 1 });
      assert.equal(encoder?.labels?.length, 10);
      assert.equal(encoder?.imageProcessor?.image_processor_type, "DeiTImageProcessor");
      await engine.close();
    }),
);

oracleTest("without inputs an encoder that needs none is stored unmeasured", "oracles", async () => {
  for (const source of ["bert", "vit"]) {
    await compressed(source, { method: "none", values: "int8" }, ({ header }) => {
      assert.deepEqual([header.agreement, header.perplexity], [null, null]);
    });
  }
});

oracleTest(
  "encoders make up no calibration, and images and text do not stand for each other",
  "oracles",
  async () => {
    const refused = (source: string, text: string, message: RegExp) =>
      assert.rejects(compressed(source, { rate: 0.5, calibration: { text } }, () => {}), {
        code: "invalid_recipe",
        message,
        param: "calibration.text",
      });
    await refused("bert", "self", /cannot write any text/);
    await refused("vit", "self", /must be a folder of images/);
    await refused("vit", folder("tokenizers"), /must be a folder with \.png/);
    await refused("vit", "/nowhere", /Cannot read/);
    await assert.rejects(
      compressed("bert", { calibration: { text: join(IMAGES, "ramp_53x37.png") } }, () => {}),
      {
        code: "unsupported_format",
        message: /images are for models that read them/,
      },
    );
  },
);

oracleTest("insight of an encoder of images comes from images", "oracles", async () => {
  const insight = (text: string) =>
    measureInsight({
      source: folder("clip_vision"),
      artifact: null,
      calibration: { text, sequences: 3, length: 16, seed: 0 },
      threads: 1,
    });
  const { calibration, blocks } = await insight(IMAGES);
  assert.deepEqual([calibration?.sequences, calibration?.length, blocks.length], [3, 17, 2]);
  await assert.rejects(insight("self"), { code: "invalid_recipe", message: /must be a folder of images/ });
});
