import assert from "node:assert/strict";
import { openGraphSource } from "../../models/onnx/graph_source.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import { node, onnxFile, textClassifier, value, VOCABULARY } from "../../models/onnx/testing/graphs.ts";
import { type Recipe, recipeSchema } from "../../models/recipe.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { calibrationInputs } from "./calibration_inputs.ts";

const wanted = (calibration: Partial<Recipe["calibration"]>): Recipe["calibration"] =>
  recipeSchema.parse({ calibration }).calibration;

/** @param files contents, or where to copy them from */
async function withSource(
  files: Readonly<Record<string, Uint8Array | string | URL>>,
  run: (
    read: (calibration: Partial<Recipe["calibration"]>) => Promise<GraphTensors[]>,
    folder: string,
  ) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      if (content instanceof URL) await Deno.copyFile(content, `${folder}/${name}`);
      else if (typeof content === "string") await Deno.writeTextFile(`${folder}/${name}`, content);
      else await Deno.writeFile(`${folder}/${name}`, content);
    }
    const source = await openGraphSource(`${folder}/m.onnx`);
    await run((calibration) => calibrationInputs(source, wanted(calibration)), folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

oracleTest(
  "a graph of images calibrates on a folder of them, as its processor wants them",
  "oracles/onnx",
  () => {
    const files = {
      "m.onnx": shared("oracles/onnx/vit_torchscript.onnx"),
      "preprocessor_config.json": shared("oracles/vit/preprocessor_config.json"),
    };
    const images = shared("oracles/preprocess").pathname;
    return withSource(files, async (read, folder) => {
      const feeds = await read({ text: images });
      assert.equal(feeds.length, 7); // beside expected.json
      for (const { pixel_values: { type, dims, data } } of feeds) {
        assert.deepEqual([type, dims], ["float32", [1, 3, 32, 32]]);
        assert.ok((data as Float32Array).every((v) => v >= -1 && v <= 1));
      }
      assert.equal((await read({ text: images, sequences: 2 })).length, 2);
      assert.deepEqual(await read({ text: images, seed: 3 }), await read({ text: images, seed: 3 }));
      assert.deepEqual((await read({ text: "self", sequences: 3 })).map((f) => f.pixel_values.dims), [
        [1, 3, 32, 32],
        [1, 3, 32, 32],
        [1, 3, 32, 32],
      ]);
      for (const text of [folder, `${folder}/m.onnx`, `${folder}/nowhere`]) {
        await assert.rejects(read({ text }), { code: "invalid_recipe", message: /must be a folder with/ });
      }
    });
  },
);

oracleTest(
  "images without preprocessor_config.json are refused",
  "oracles/onnx",
  () =>
    withSource({ "m.onnx": shared("oracles/onnx/vit_torchscript.onnx") }, async (read) => {
      const images = shared("oracles/preprocess").pathname;
      await assert.rejects(read({ text: images }), {
        code: "invalid_recipe",
        message: /preprocessor_config\.json/,
      });
    }),
);

const TOKENIZER = {
  version: "1.0",
  added_tokens: [],
  pre_tokenizer: { type: "WhitespaceSplit" },
  model: {
    type: "WordPiece",
    unk_token: "w0",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries(Array.from({ length: VOCABULARY }, (_, i) => [`w${i}`, i])),
  },
};

Deno.test("a graph of token ids calibrates on a text, or on ids at random below its vocabulary", () => {
  const words = Array.from({ length: 200 }, (_, i) => `w${i % VOCABULARY}`).join(" ");
  const config = JSON.stringify({ vocab_size: VOCABULARY, max_position_embeddings: 20 });
  const files = {
    "m.onnx": textClassifier(),
    "config.json": config,
    "tokenizer.json": JSON.stringify(TOKENIZER),
  };
  return withSource({ ...files, "text.txt": words }, async (read, folder) => {
    for (const text of [`${folder}/text.txt`, "self"]) {
      const feeds = await read({ text, sequences: 4 });
      assert.equal(feeds.length, 4);
      for (const { input_ids, attention_mask } of feeds) {
        assert.deepEqual([input_ids.type, input_ids.dims, attention_mask.dims], ["int64", [1, 20], [1, 20]]);
        assert.ok((input_ids.data as BigInt64Array).every((id) => id >= 0n && id < BigInt(VOCABULARY)));
        assert.ok((attention_mask.data as BigInt64Array).every((m) => m === 1n));
      }
    }
  });
});

Deno.test("token ids need a vocabulary or a tokenizer", () =>
  withSource({ "m.onnx": textClassifier(), "text.txt": "w1 w2" }, async (read, folder) => {
    await assert.rejects(read({ text: "self" }), { code: "invalid_recipe", message: /config\.json/ });
    await assert.rejects(read({ text: `${folder}/text.txt` }), {
      code: "invalid_recipe",
      message: /tokenizer\.json/,
    });
  }));

Deno.test("numbers of config.json are taken where they are some", () =>
  withSource({
    "m.onnx": textClassifier(),
    "config.json": JSON.stringify({ vocab_size: VOCABULARY, max_position_embeddings: "many" }),
  }, async (read) => {
    const [{ input_ids }] = await read({ text: "self", sequences: 1, length: 32 });
    assert.deepEqual(input_ids.dims, [1, 32]);
  }));

Deno.test("inputs that would not stand in memory together are refused before they are made", () => {
  const graph = {
    input: [value("pixel_values", [1, 3, 4096, 4096])],
    output: [value("y", [1, 3, 4096, 4096])],
    initializer: [],
    node: [node("Relu", ["pixel_values"], "y")],
  };
  return withSource({ "m.onnx": onnxFile(graph) }, async (read) => {
    await assert.rejects(read({ text: "self" }), { code: "invalid_recipe", message: /ask for 5 sequences/ });
  });
});
