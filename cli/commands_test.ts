import assert from "node:assert/strict";
import { recipeSchema } from "../models/recipe.ts";
import { median } from "../bench/spread.ts";
import { mergeRecipe, readRecipe } from "./compress.ts";
import { ProgressBar, table } from "./output.ts";
import { welcome } from "./serve.ts";

Deno.test("mergeRecipe() puts options over the file's fields and leaves the rest", () => {
  const file = { rate: 0.5, values: "int4", allocation: "uniform", calibration: { sequences: 4, seed: 9 } };
  const merged = recipeSchema.parse(mergeRecipe(file, { out: "x", refine: true, rate: 0.25, length: 64 }));
  assert.deepEqual([merged.rate, merged.values, merged.allocation.kind], [0.25, "int4", "uniform"]);
  assert.deepEqual([merged.calibration.sequences, merged.calibration.length, merged.calibration.seed], [
    4,
    64,
    9,
  ]);
  assert.equal(merged.refine, true);
  const rounded = recipeSchema.parse(mergeRecipe(file, { out: "x", refine: true, rounding: "feedback" }));
  assert.equal(rounded.rounding, "feedback");
  const dense = (o: { dense?: ("q" | "o")[] }) =>
    recipeSchema.parse(mergeRecipe({ dense: ["v"] }, { out: "x", refine: true, ...o })).dense;
  assert.deepEqual([dense({}), dense({ dense: ["q", "o"] }), dense({ dense: [] })], [["v"], ["q", "o"], []]);
  assert.equal(recipeSchema.parse(mergeRecipe({}, { out: "x", refine: false })).refine, false);
  const groups = mergeRecipe({}, { out: "x", refine: true, method: "sparsegpt", pattern: "2:4" });
  assert.deepEqual([recipeSchema.parse(groups).rate, recipeSchema.parse(groups).allocation.kind], [
    0.5,
    "uniform",
  ]);
  const mixed = mergeRecipe({ values: "int4" }, { out: "x", refine: true, meanBits: 3.5 });
  assert.deepEqual([recipeSchema.parse(mixed).mean_bits, recipeSchema.parse(mixed).values], [3.5, "int4"]);
  const svd = mergeRecipe({}, { out: "x", refine: true, method: "svd", svdWeighting: "none" });
  assert.equal(recipeSchema.parse(svd).svd_weighting, "none");
});

Deno.test("readRecipe() refuses what is no JSON object, naming the file", async () => {
  const path = await Deno.makeTempFile();
  for (const text of ["null", "[]", "{"]) {
    await Deno.writeTextFile(path, text);
    await assert.rejects(readRecipe(path), { code: "invalid_recipe", message: new RegExp(path) });
  }
  await Deno.remove(path);
  assert.deepEqual(await readRecipe(undefined), {});
});

Deno.test("a bar without a terminal has a line for each tenth, and for what a phase waits for", () => {
  const lines: string[] = [], { writeSync } = Deno.stderr;
  Deno.stderr.writeSync = (bytes) => {
    lines.push(new TextDecoder().decode(bytes).trim());
    return bytes.length;
  };
  try {
    const bar = new ProgressBar({ terminal: false });
    for (const message of ["waits 0 %", "waits 0 %", "waits 10 %"]) {
      bar.show({ phase: "recover", done: 0, total: 30, message });
    }
    for (let done = 1; done <= 6; done++) bar.show({ phase: "recover", done, total: 30, loss: 0.5 });
  } finally {
    Deno.stderr.writeSync = writeSync;
  }
  const loss = "loss 0.5000, 0 tokens/s";
  assert.deepEqual(lines, [
    "recover 0/30  waits 0 %",
    "recover 0/30  waits 10 %",
    `recover 1/30  ${loss}`,
    `recover 3/30  ${loss}`,
    `recover 6/30  ${loss}`,
  ]);
});

Deno.test("table() aligns numbers right and words left", () => {
  assert.deepEqual(table([["name", "n"], ["a", 12], ["bb", 3.14159]]), [
    "name  n",
    "a        12",
    "bb    3.142",
  ]);
});

Deno.test("median() of odd and even counts", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
});

Deno.test("welcome() names an address that a client can use", () => {
  assert.match(
    welcome({ host: "0.0.0.0", port: 80 }, { bundled: true, keys: false }),
    /curl http:\/\/127\.0\.0\.1:80\/v1\/completions/,
  );
  assert.match(welcome({ host: "::1", port: 80 }, { bundled: false, keys: false }), /http:\/\/\[::1\]:80/);
});

Deno.test("welcome() says who may call, and sends a key along where one is needed", () => {
  const lines = (host: string, keys: boolean) => welcome({ host, port: 80 }, { bundled: true, keys });
  assert.match(lines("127.0.0.1", false), /No API keys: for this machine only/);
  assert.match(lines("0.0.0.0", false), /No API keys: whoever reaches it/);
  assert.match(
    lines("0.0.0.0", true),
    /needs an API key[^]*curl .* -H "authorization: Bearer \$OATMILL_API_KEY"/,
  );
});
