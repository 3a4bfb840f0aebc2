import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../../errors.ts";
import { recipeSchema } from "../../models/recipe.ts";
import { randomCheckpoint } from "../../models/testing/random_checkpoint.ts";
import { SMALL_DECODER } from "../../models/testing/small_spec.ts";
import { seededRandom } from "../random.ts";
import { TextOverlap } from "./text_overlap.ts";
import { trainingTexts } from "./training_texts.ts";

const LENGTH = 48;
const CHECKPOINT = randomCheckpoint({ ...SMALL_DECODER, vocabSize: 5000 });

async function withText(documents: readonly (readonly number[])[], use: (path: string) => Promise<void>) {
  const path = await Deno.makeTempFile({ suffix: ".jsonl" });
  await Deno.writeTextFile(path, documents.map((ids) => JSON.stringify(ids)).join("\n"));
  try {
    await use(path);
  } finally {
    await Deno.remove(path);
  }
}
const recoverOf = (recover: object) => recipeSchema.parse({ recover }).recover!;
const idsOf = (count: number, seed: number) => {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => random.below(5000));
};

Deno.test("TextOverlap sees 32 tokens in a row wherever they stand, and nothing shorter", () => {
  fc.assert(fc.property(
    fc.nat(),
    fc.integer({ min: 0, max: 100 }),
    fc.integer({ min: 0, max: 60 }),
    fc.integer({ min: 16, max: 40 }),
    (seed, from, to, count) => {
      const held = Int32Array.from(idsOf(160, seed)), other = Int32Array.from(idsOf(100, seed + 1));
      assert.equal(new TextOverlap([held]).has(other), false);
      other.set(held.subarray(from, from + count), to);
      assert.equal(new TextOverlap([held]).has(other), count >= 32);
    },
  ));
  assert.equal(new TextOverlap([]).has(Int32Array.from(idsOf(40, 1))), false);
});

Deno.test("trainingTexts() trains on nothing that is held out, and validates on nothing that it trains on", async () => {
  const documents = Array.from({ length: 40 }, (_, i) => idsOf(3 * LENGTH + i, i));
  await withText(documents, async (text) => {
    // Cut elsewhere than the text's own sequences.
    const heldOut = [3, 17, 20].map((i) => Int32Array.from(documents[i].slice(10, 100)));
    const request = { recover: recoverOf({ tokens: 60 * LENGTH, length: LENGTH }), text, heldOut, given: [] };
    const { training, validation } = await trainingTexts(CHECKPOINT, request, {});
    assert.deepEqual([training.length, validation.length], [60, 8]);
    const held = new TextOverlap([...heldOut, ...validation]);
    assert.ok(training.every((ids) => ids.length === LENGTH && !held.has(ids)));
    assert.deepEqual(await trainingTexts(CHECKPOINT, request, {}), { training, validation });
    const other = await trainingTexts(
      CHECKPOINT,
      { ...request, recover: { ...request.recover, seed: 1 } },
      {},
    );
    assert.notDeepEqual(other.training, training);
  });
});

Deno.test("trainingTexts() makes do with a short text, and says when there is none", async () => {
  const documents = [idsOf(LENGTH, 1), idsOf(LENGTH, 2), idsOf(LENGTH, 3)];
  await withText(documents, async (text) => {
    const request = { recover: recoverOf({ length: LENGTH }), text, heldOut: [], given: [] };
    const { training, validation } = await trainingTexts(CHECKPOINT, request, {});
    assert.deepEqual([training.length, validation.length], [2, 1]);
    const heldOut = documents.slice(1).map((ids) => Int32Array.from(ids));
    await assert.rejects(
      trainingTexts(CHECKPOINT, { ...request, heldOut }, {}),
      (e) =>
        e instanceof OatmillError && e.code === "invalid_recipe" &&
        /1 sequences of 48 tokens beside/.test(e.message),
    );
  });
});
