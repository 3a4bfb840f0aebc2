import assert from "node:assert/strict";
import { recipeSchema } from "./recipe.ts";

Deno.test("recipeSchema fills every default", () => {
  const recipe = recipeSchema.parse({});
  assert.equal(recipe.method, "oatmill");
  assert.deepEqual([recipe.rank_ratio, recipe.reselect], [0.125, 4]);
  const oats = recipeSchema.parse({ method: "oats" });
  assert.equal(oats.allocation.kind, "uniform");
  assert.equal(recipeSchema.parse({ allocation: {} }).allocation.kind, "measured");
  assert.deepEqual([oats.rank_ratio, oats.reselect, oats.iterations], [0.25, 0, 20]);
  assert.equal(recipe.rate, 0.3);
  assert.deepEqual(recipe.allocation, { kind: "measured", lambda: 0.08, m: 5 });
  assert.equal(recipe.calibration.text, "self");
  assert.deepEqual(recipeSchema.parse(recipe), recipe);
});

Deno.test("recipeSchema takes an allocation by its name alone", () => {
  assert.equal(recipeSchema.parse({ allocation: "uniform" }).allocation.kind, "uniform");
});

Deno.test("recipeSchema refuses misspelt fields and values out of range", () => {
  for (
    const bad of [
      { ratee: 0.5 },
      { calibration: { sequence: 3 } },
      { rate: 1 },
      { rate: "0.5" },
      {
        method: "magic",
      },
      { dense: ["head"] },
      { dense: "q" },
      { values: "int6" },
      { rounding: "up" },
      { evaluate: { tokens: 1 } },
    ]
  ) {
    assert.equal(recipeSchema.safeParse(bad).success, false, JSON.stringify(bad));
  }
});

Deno.test("recipeSchema reads rate and allocation off an N:M pattern", () => {
  const wanda = recipeSchema.parse({ method: "wanda", pattern: "2:4" });
  assert.deepEqual([wanda.rate, wanda.allocation.kind], [0.5, "uniform"]);
  const oats = recipeSchema.parse({ method: "oats", pattern: "8:16", allocation: { lambda: 0.1 } });
  assert.ok(Math.abs(oats.rate - 1 / 3) < 1e-9); // S 1/2, L 1/6: a quarter of what is kept
  assert.equal(oats.allocation.kind, "uniform");
  assert.equal(recipeSchema.parse({ rank_ratio: 1, pattern: "4:8" }).rate, 0.3);
  const mixed = recipeSchema.parse({ method: "sparsegpt", pattern: "4:8", allocation: "owl" });
  assert.equal(mixed.allocation.kind, "owl");
  assert.deepEqual(recipeSchema.parse(mixed), mixed);
});

Deno.test("recipeSchema refuses a rate that an N:M pattern contradicts, and N:M of what has no S", () => {
  const issue = (input: object) => recipeSchema.safeParse(input).error?.issues[0];
  assert.match(issue({ method: "wanda", pattern: "2:4", rate: 0.3 })!.message, /removes 0\.5/);
  assert.match(issue({ method: "oats", pattern: "4:8", rate: 0.6 })!.message, /at most 0\.5/);
  assert.deepEqual(issue({ method: "svd", pattern: "8:16" })!.path, ["pattern"]);
  assert.equal(issue({ method: "oats", pattern: "4:8", rate: 0.4 }), undefined);
});

Deno.test("recipeSchema takes a mean of bits, and refuses one that something else contradicts", () => {
  const mixed = recipeSchema.parse({ method: "none", values: "int4", mean_bits: 3.5 });
  assert.equal(mixed.mean_bits, 3.5);
  assert.deepEqual(recipeSchema.parse(mixed), mixed);
  assert.equal(recipeSchema.parse({}).mean_bits, null);
  const contradicted = [
    [{ values: "f32" }, /f32/],
    [{ values: "int3" }, /3 bits at most/],
    [{ budget: { bytes: 1e6 } }, /budget/],
    [{ method: "structured" }, /structured/],
    [{ method: "oats", rate: 0 }, /rate 0/],
    [{ mean_bits: 1.9 }, />=2/],
    [{ mean_bits: 8.1 }, /<=8/],
  ] as const;
  for (const [fields, message] of contradicted) {
    const issue = recipeSchema.safeParse({ mean_bits: 4, ...fields }).error?.issues[0];
    assert.deepEqual(issue?.path, ["mean_bits"], JSON.stringify(fields));
    assert.match(issue!.message, message);
  }
});

Deno.test("recipeSchema refuses what method structured would ignore, and takes a stored recipe again", () => {
  const stored = recipeSchema.parse({ method: "structured", rate: 0.2, dense: ["o"], refine: false });
  assert.deepEqual(recipeSchema.parse(stored), stored);
  const ignored = [
    { pattern: "unstructured" },
    { pattern: "2:4" },
    { rank_ratio: 0.1 },
    { iterations: 3 },
    { decomposition: "exact" },
    { svd_weighting: "none" },
    { reselect: 1 },
    { allocation: "measured" },
    { budget: { bytes: 1e6 } },
  ];
  for (const field of ignored) {
    const { error } = recipeSchema.safeParse({ method: "structured", ...field });
    assert.deepEqual(error?.issues[0].path, Object.keys(field));
  }
});

Deno.test("a preset fills what a recipe leaves out, field by field", () => {
  const fast = recipeSchema.parse({
    preset: "fast",
    rate: 0.4,
    calibration: { text: "a.txt" },
    refine: true,
  });
  assert.deepEqual(
    [
      fast.method,
      fast.rate,
      fast.refine,
      fast.allocation.kind,
      fast.calibration.text,
      fast.calibration.sequences,
    ],
    ["oats", 0.4, true, "uniform", "a.txt", 8],
  );
  assert.deepEqual(recipeSchema.parse(fast), fast); // a stored recipe reads back as it is
  assert.deepEqual(recipeSchema.parse({ preset: "default" }), recipeSchema.parse({}));
  assert.equal(recipeSchema.safeParse({ preset: "slow" }).success, false);
  assert.equal(recipeSchema.safeParse({ preset: "fast", calibration: 3 }).success, false);
});

Deno.test("recipeSchema takes a recovery by its kind alone, and fills in the rest", () => {
  assert.equal(recipeSchema.parse({}).recover, null);
  const recover = {
    kind: "blockwise",
    tokens: 100_000,
    train: "lowrank+sparse",
    learning_rate: null,
    batch: null,
    length: 256,
    seed: 0,
    text: null,
  };
  const recipe = recipeSchema.parse({ recover: "blockwise" });
  assert.deepEqual(recipe.recover, recover);
  assert.deepEqual(recipeSchema.parse(recipe), recipe);
  assert.equal(recipeSchema.parse({ recover: {} }).recover!.kind, "distill");
});

Deno.test("recipeSchema refuses to recover what has no S + L, and to train on the text to evaluate on", () => {
  const issue = (input: object) => recipeSchema.safeParse(input).error?.issues[0];
  for (const method of ["none", "structured"]) {
    assert.match(issue({ method, recover: "distill" })!.message, new RegExp(`method ${method} leaves dense`));
  }
  assert.match(issue({ rate: 0, recover: "distill" })!.message, /stays dense/);
  const sparse = { method: "wanda", recover: { train: "lowrank" } };
  assert.deepEqual(issue(sparse)!.path, ["recover", "train"]);
  assert.equal(issue({ ...sparse, recover: "distill" }), undefined);
  assert.deepEqual(issue({ evaluate: { text: "a" }, recover: { text: "a" } })!.path, ["recover", "text"]);
  for (const bad of [{ tokens: 1 }, { learning_rate: 0 }, { train: "all" }, { steps: 3 }, "lora"]) {
    assert.equal(issue({ recover: bad })?.path[0], "recover", JSON.stringify(bad));
  }
});
