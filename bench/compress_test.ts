import assert from "node:assert/strict";
import { rowsNamed } from "../cli/bench_compress_rows.ts";
import { recipeSchema } from "../models/recipe.ts";
import { benchCompress, type BenchCompressOptions } from "./compress.ts";
import { COMPRESS_ROW_NAMES, rowRecipeOf } from "./compress_rows.ts";

const SOURCE = new URL("../models/default/", import.meta.url).pathname;

Deno.test("rows are recipes that differ", () => {
  const recipes = COMPRESS_ROW_NAMES.map((name) => recipeSchema.parse(rowRecipeOf(name, 1000)));
  assert.equal(new Set(recipes.map((recipe) => JSON.stringify(recipe))).size, recipes.length);
  assert.deepEqual(rowRecipeOf("budget of 0.8 int8", 1000).budget, { bytes: 800 });
});

Deno.test("rowsNamed() takes names and parts of names, and refuses those that no row has", () => {
  assert.deepEqual(rowsNamed(["oatmill 0.5", "oats 0.5: owl"]), ["oatmill 0.5", "oats 0.5: owl"]);
  assert.deepEqual(rowsNamed(["dense f32", "magnitude"]), ["dense f32", "magnitude 0.5"]);
  assert.throws(() => rowsNamed(["nothing"]), /Cannot find rows "nothing": there are "dense f32"/);
});

Deno.test("benchCompress() measures rows in processes of their own, and goes on behind those that are there", async () => {
  const folder = await Deno.makeTempDir(), asked: string[] = [];
  try {
    const options: BenchCompressOptions = {
      source: SOURCE,
      rows: ["dense int8"],
      calibration: { sequences: 2, length: 32 },
      evaluate: { tokens: 128 },
      folder,
      threads: 1,
      onProgress: (_, __, row) => asked.push(row),
    };
    const { rows: [dense], tokens } = await benchCompress(options);
    assert.ok(dense.perplexity > 1 && Math.abs(dense.perplexity / dense.dense_perplexity - 1) < 0.1);
    const [budget] = (await benchCompress({ ...options, rows: ["budget of int8"] })).rows;
    const { bytes } = budget.recipe.budget as { bytes: number };
    assert.ok(Math.abs(bytes / dense.bytes - 1) < 0.01, `${bytes}, dense int8 has ${dense.bytes}`);
    assert.ok(budget.bytes <= bytes);
    assert.ok(dense.seconds > 0 && dense.peak_rss_bytes > 1e7 && dense.bytes > 1e6 && tokens > 0);
    const both = await benchCompress({ ...options, rows: ["dense int8", "magnitude 0.5"] });
    assert.deepEqual(both.rows[0], dense); // to the millisecond: not measured again
    assert.ok(both.rows[1].perplexity > dense.perplexity);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["compress-rows.jsonl"]);
    assert.deepEqual(asked, ["dense int8", "", "budget of int8", "", "dense int8", "magnitude 0.5", ""]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
