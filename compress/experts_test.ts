/** Mixture of experts through what only whole compressions show: measured losses, budgets, layers named dense, insight. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { INSIGHT_FILE } from "../models/formats/insight_file.ts";
import type { RecipeInput } from "../models/recipe.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { compress } from "./pipeline.ts";

const SOURCE = shared("oracles/mixtral/").pathname;
/** Layers of one of the model's two blocks: q, k, v, o and three of each of four experts. */
const LAYERS = 4 + 3 * 4;

async function inFolder(run: (folder: string, text: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir(), text = join(folder, "ids.json");
  const { nll: { ids } } = JSON.parse(await Deno.readTextFile(join(SOURCE, "expected.json")));
  await Deno.writeTextFile(text, JSON.stringify([ids, ids.toReversed()]));
  await run(folder, text);
  await Deno.remove(folder, { recursive: true });
}

const recipeOf = (text: string, own: RecipeInput): RecipeInput => ({
  calibration: { text, sequences: 4, length: 32 },
  evaluate: { tokens: 64 },
  ...own,
});

oracleTest(
  "measured losses spend a budget of bytes on experts as on other layers",
  "oracles/mixtral",
  () =>
    inFolder(async (folder, text) => {
      const recipe = recipeOf(text, {
        method: "oats",
        iterations: 2,
        allocation: "measured",
        budget: { bytes: 240_000 },
      });
      const out = join(folder, "out"),
        { header } = await compress({ source: SOURCE, out, recipe, threads: 1 });
      assert.ok(header.bytes <= 240_000 && header.bytes > 200_000, `${header.bytes} bytes`);
      assert.equal(header.layers.length, 2 * LAYERS);
      const experts = header.layers.filter(({ name }) => name.includes(".experts."));
      const ways = new Set(experts.map(({ rate, values }) => `${rate} ${values}`));
      assert.ok(ways.size > 1, `all experts the same: ${[...ways]}`);
      const insight = JSON.parse(await Deno.readTextFile(join(out, INSIGHT_FILE)));
      assert.equal(insight.layers.length, 2 * LAYERS);
      assert.equal(insight.inputs.length, 2 * (2 + 2 * 4));
    }),
);

oracleTest(
  "a kind of layers that stays dense does so in every expert",
  "oracles/mixtral",
  () =>
    inFolder(async (folder, text) => {
      const recipe = recipeOf(text, { method: "wanda", rate: 0.3, dense: ["down"] });
      const { header } = await compress({ source: SOURCE, out: join(folder, "out"), recipe, threads: 1 });
      for (const { name, rate } of header.layers) assert.equal(rate === 0, name.endsWith(".down"), name);
    }),
);

oracleTest(
  "structured pruning of experts is refused",
  "oracles/mixtral",
  () =>
    inFolder(async (folder, text) => {
      const recipe = recipeOf(text, { method: "structured", rate: 0.3 });
      await assert.rejects(
        compress({ source: SOURCE, out: join(folder, "out"), recipe, threads: 1 }),
        (e) =>
          e instanceof OatmillError && e.code === "invalid_recipe" && /mixture of experts/.test(e.message),
      );
    }),
);
