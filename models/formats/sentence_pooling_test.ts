import assert from "node:assert/strict";
import { join } from "node:path";
import { readSentencePooling } from "./sentence_pooling.ts";

async function poolingOf(files: Readonly<Record<string, unknown>>) {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(join(folder, "1_Pooling"));
    for (const [name, value] of Object.entries(files)) {
      await Deno.writeTextFile(join(folder, name), JSON.stringify(value));
    }
    return await readSentencePooling(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const POOLING = "1_Pooling/config.json";
const MEAN = { word_embedding_dimension: 8, pooling_mode_cls_token: false, pooling_mode_mean_tokens: true };

Deno.test("readSentencePooling() reads mean and CLS, and whether vectors are normalised", async () => {
  assert.equal(await poolingOf({}), null);
  assert.deepEqual(await poolingOf({ [POOLING]: MEAN }), { pooling: "mean", unitLength: false });
  const modules = [{ idx: 2, path: "2_Normalize", type: "sentence_transformers.models.Normalize" }];
  assert.deepEqual(
    await poolingOf({ [POOLING]: { pooling_mode_cls_token: true }, "modules.json": modules }),
    { pooling: "cls", unitLength: true },
  );
});

Deno.test("readSentencePooling() refuses other poolings by name, and broken files", async () => {
  const max = { ...MEAN, pooling_mode_max_tokens: true };
  await assert.rejects(poolingOf({ [POOLING]: max }), {
    code: "unsupported_architecture",
    message: /pooling_mode_mean_tokens and pooling_mode_max_tokens/,
  });
  await assert.rejects(poolingOf({ [POOLING]: MEAN, "modules.json": { a: 1 } }), { code: "invalid_config" });
});

Deno.test("a file in the place of a folder says nothing about pooling", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/1_Pooling`, "");
    assert.equal(await readSentencePooling(folder), null);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
