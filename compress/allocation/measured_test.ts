import assert from "node:assert/strict";
import { LINEAR_NAMES, linearShapes } from "../../models/spec.ts";
import type { FormatTimes } from "../../kernels/format_times.ts";
import { finestSlots, formatName } from "../../kernels/layout.ts";
import { recipeSchema } from "../../models/recipe.ts";
import { openCheckpoint } from "../../models/open.ts";
import { packedBytes } from "../../kernels/layout.ts";
import { planBytes, planParameters } from "../layer_plan.ts";
import { matrix } from "../linalg/matrix.ts";
import { measuredPlans, type Measurements } from "./measured.ts";
import { planMs } from "./layer_times.ts";
import { CURVE_POINTS, droppedCurve, type LayerProbe } from "./probe_job.ts";

const checkpoint = await openCheckpoint(new URL("../../models/default", import.meta.url).pathname);
checkpoint.close();
const { spec } = checkpoint, shapes = linearShapes(spec), names = LINEAR_NAMES.filter((name) => shapes[name]);

const int8 = new Array<"int8">(spec.blocks).fill("int8");

/** Layers that lose exponentially with their rate, as measured ones do. */
const probe: LayerProbe = {
  error: 0.03,
  kept: 0.4375,
  lowRank: 0.0625,
  rounding: { int8: 1e-4, int4: 0.01 },
  curve: Array.from({ length: CURVE_POINTS + 1 }, (_, i) => Math.exp(-8.7 * (i / CURVE_POINTS - 0.4375))),
};

function measurements(parts: Measurements["divergences"]["parts"]): Measurements {
  return {
    probes: Array.from({ length: spec.blocks }, () => Object.fromEntries(names.map((name) => [name, probe]))),
    divergences: { parts, kinds: Object.fromEntries(names.map((name) => [name, 0.1])) },
  };
}

const equal = Array.from({ length: spec.blocks }, () => ({ attention: 0.01, mlp: 0.03 }));
const rateOf = (plans: ReturnType<typeof measuredPlans>, block: number, name: string) =>
  1 - planParameters(shapes[name], plans[block][name]) / (shapes[name][0] * shapes[name][1]);

Deno.test("measuredPlans() meets the rate, for every rate", () => {
  for (const rate of [0.1, 0.3, 0.5, 0.8, 0.9]) {
    const plans = measuredPlans(measurements(equal), {
      spec,
      recipe: recipeSchema.parse({ rate }),
      values: int8,
      blockChunks: 4,
      otherBytes: 0,
      speed: null,
    });
    let kept = 0, all = 0;
    for (const ofBlock of plans) {
      for (const [name, plan] of Object.entries(ofBlock)) {
        kept += planParameters(shapes[name], plan);
        all += shapes[name][0] * shapes[name][1];
      }
    }
    assert.ok(kept <= (1 - rate) * all && kept > (1 - rate) * all * 0.97, `${rate}: ${1 - kept / all}`);
  }
});

Deno.test("measuredPlans() gives every block its own values, and layers that stay dense int8", () => {
  const mixed = int8.map((_, block) => (["int4", "int3", "int8"] as const)[block % 3]);
  const plans = measuredPlans(measurements(equal), {
    spec,
    recipe: recipeSchema.parse({ rate: 0.05, mean_bits: 5 }),
    values: mixed,
    blockChunks: 4,
    otherBytes: 0,
    speed: null,
  });
  const found = plans.flatMap((ofBlock, block) =>
    Object.values(ofBlock).map(({ budget, values }) => ({ dense: !budget, values, own: mixed[block] }))
  );
  assert.ok(found.some(({ dense }) => dense) && found.some(({ dense }) => !dense));
  for (const { dense, values, own } of found) assert.equal(values, dense ? "int8" : own);
});

Deno.test("measuredPlans() keeps the least that windows can at a rate they cannot meet", () => {
  const recipe = recipeSchema.parse({ rate: 0.95 });
  for (
    const ofBlock of measuredPlans(measurements(equal), {
      spec,
      recipe,
      values: int8,
      blockChunks: 4,
      otherBytes: 0,
      speed: null,
    })
  ) {
    assert.ok(Object.values(ofBlock).every(({ budget }) => budget!.windows === 1));
  }
});

Deno.test("measuredPlans() lets layers that matter more keep more", () => {
  const parts = equal.map((part, block) => block === 2 ? { ...part, mlp: 0.3 } : part);
  const plans = measuredPlans(measurements(parts), {
    spec,
    recipe: recipeSchema.parse({ rate: 0.5 }),
    values: int8,
    blockChunks: 4,
    otherBytes: 0,
    speed: null,
  });
  assert.ok(rateOf(plans, 2, "up") < rateOf(plans, 1, "up") - 0.1);
  assert.ok(Math.abs(rateOf(plans, 1, "up") - rateOf(plans, 3, "up")) < 0.03);
});

Deno.test("measuredPlans() meets a budget of bytes, and mixes dense and sparse where that is best", () => {
  const bytes = (plans: ReturnType<typeof measuredPlans>) =>
    plans.flatMap((some) => Object.entries(some)).reduce(
      (sum, [name, plan]) => sum + planBytes(shapes[name], plan, 4),
      0,
    );
  const dense = names.reduce((sum, name) => sum + packedBytes({ kind: "q8" }, shapes[name]!), 0) *
    spec.blocks;
  for (const share of [1.1, 0.8, 0.6, 0.4]) {
    const recipe = recipeSchema.parse({ budget: { bytes: Math.floor(share * dense) + 1000 } });
    const plans = measuredPlans(measurements(equal), {
      spec,
      recipe,
      values: int8,
      blockChunks: 4,
      otherBytes: 1000,
      speed: null,
    });
    assert.ok(bytes(plans) <= share * dense && bytes(plans) > 0.93 * Math.min(1, share) * dense, `${share}`);
    if (share > 1) assert.ok(Object.values(plans[0]).every((plan) => !plan.budget && plan.values === "int8"));
  }
  assert.throws(
    () =>
      measuredPlans(measurements(equal), {
        spec,
        recipe: recipeSchema.parse({ budget: { bytes: 2000 } }),
        values: int8,
        blockChunks: 4,
        otherBytes: 1000,
        speed: null,
      }),
    /Cannot compress the model to 2000 bytes: its blocks need \d+ at least, the rest 1000/,
  );
});

Deno.test("measuredPlans() meets a budget of milliseconds, and chooses by the workload", () => {
  // Windows take less than dense layers in batches, and as much in decode: a machine that its memory binds.
  const times: FormatTimes = Object.fromEntries(
    ["q8", "q4"].flatMap((dense) => [
      [dense, { decode: dense === "q8" ? 1 : 0.5, batched: 1 }],
      ...Array.from(
        { length: 15 },
        (_, i) => {
          const name = formatName({
            kind: "windows",
            ...finestSlots(i + 1),
            bits: dense === "q8" ? 8 : 4,
            blockChunks: 1,
          });
          return [name, { decode: dense === "q8" ? 1.1 : 0.9, batched: (i + 1) / 16 }];
        },
      ),
    ]),
  );
  const all = names.reduce((sum, name) => sum + shapes[name]![0] * shapes[name]![1], 0) * spec.blocks;
  const chosen = (workload: "decode" | "prefill", share: number) => {
    const head = workload === "decode" ? spec.vocabSize * spec.hiddenSize : 0;
    const recipe = recipeSchema.parse({ budget: { ms_per_token: (head + share * all) / 1e6, workload } });
    const speed = { times, threads: 1 };
    const plans = measuredPlans(measurements(equal), {
      spec,
      recipe,
      values: int8,
      blockChunks: 4,
      otherBytes: 0,
      speed,
    });
    const cost = plans.flatMap((some) => Object.entries(some)).reduce(
      (sum, [name, plan]) => sum + planMs(shapes[name]!, plan, { ...speed, workload, blockChunks: 4 }),
      0,
    );
    assert.ok(
      cost <= share * all / 1e6 && cost > 0.9 * share * all / 1e6,
      `${workload}: ${cost} of ${share * all / 1e6}`,
    );
    return plans.flatMap((some) => Object.values(some));
  };
  assert.ok(chosen("decode", 0.6).every(({ budget }) => budget === null)); // sparse would not be faster
  assert.ok(
    chosen("prefill", 0.6).filter(({ budget }) => budget !== null).length > 0.7 * spec.blocks * names.length,
  );
});

Deno.test("measuredPlans() takes parts that seem to gain from compression for parts that do not matter", () => {
  const parts = equal.map((part, block) => block === 0 ? { attention: -0.001, mlp: 0 } : part);
  const plans = measuredPlans(measurements(parts), {
    spec,
    recipe: recipeSchema.parse({ rate: 0.5 }),
    values: int8,
    blockChunks: 4,
    otherBytes: 0,
    speed: null,
  });
  assert.ok(rateOf(plans, 0, "q") > 0.7 && rateOf(plans, 0, "down") > 0.7);
});

Deno.test("droppedCurve() is the energy of the smallest entries, relative to what is kept", () => {
  const row = Float32Array.from({ length: CURVE_POINTS }, (_, i) => (i % 2 ? 1 : -1) * (i + 1));
  const curve = droppedCurve(matrix(1, CURVE_POINTS, row), 32);
  const energy = (n: number) => n * (n + 1) * (2 * n + 1) / 6; // of 1..n
  for (const i of [0, 10, 32, 64]) {
    assert.ok(Math.abs(curve[i] - energy(CURVE_POINTS - i) / energy(32)) < 1e-6, `${i}`);
  }
});

Deno.test("a layer whose quick S + L hardly errs is not thought to suffer from rounding more than others of its name", () => {
  const odd = { ...probe, error: 1e-6 }, ordinary = measurements(equal);
  const probes = ordinary.probes.map((ofBlock, i) => i === 2 ? { ...ofBlock, down: odd } : ofBlock);
  const bytes = names.reduce((sum, name) => sum + packedBytes({ kind: "q4" }, shapes[name]!), 0) *
    spec.blocks;
  const plans = measuredPlans({ ...ordinary, probes }, {
    spec,
    recipe: recipeSchema.parse({ budget: { bytes: Math.floor(0.999 * bytes) } }),
    values: int8,
    blockChunks: 4,
    otherBytes: 0,
    speed: null,
  });
  assert.deepEqual(plans[2].down, { budget: null, values: "int4" });
});
