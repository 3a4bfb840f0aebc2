import assert from "node:assert/strict";
import { Prompts } from "./contender.ts";

for (const vocabSize of [259, 2048, 32003]) {
  Deno.test(`Prompts of ${vocabSize} ids are new each time, and within the vocabulary`, () => {
    const prompts = new Prompts(vocabSize);
    const some = Array.from({ length: 8 }, () => prompts.next(512));
    for (const ids of some) assert.ok(ids.every((id) => Number.isInteger(id) && id >= 3 && id < vocabSize));
    const beginnings = some.map((ids) => ids.slice(0, 16).join());
    assert.equal(new Set(beginnings).size, some.length);
  });
}
