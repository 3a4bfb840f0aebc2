import assert from "node:assert/strict";
import type { Tokenizer } from "../models/tokenizer.ts";
import { OatmillError } from "../errors.ts";
import { evaluationSequences, textSequences } from "./calibration.ts";

/** One token a character; BOS 1 where asked for. */
function characters(bos: boolean): Tokenizer {
  const encode: Tokenizer["encode"] = (text, o) => [
    ...(bos && o?.addSpecialTokens !== false ? [1] : []),
    ...Array.from(text, (c) => c.charCodeAt(0)),
  ];
  return { encode } as Tokenizer; // the rest is not used
}

async function withFile(name: string, text: string, use: (path: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${dir}/${name}`, text);
    await use(`${dir}/${name}`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const REQUEST = { sequences: 3, length: 4, seed: 5 };
const invalidRecipe = (e: unknown) => e instanceof OatmillError && e.code === "invalid_recipe";

Deno.test("textSequences() takes one window of each long document, repeatably by seed", async () => {
  const documents = ["aaaaaaaaaa", "bb", "cccccccc", "dddddd", "ee"].map((text) => JSON.stringify({ text }));
  await withFile("x.jsonl", documents.join("\n"), async (path) => {
    const found = await textSequences(path, characters(false), REQUEST);
    assert.equal(found.length, 3);
    for (const ids of found) assert.ok(ids.length === 4 && new Set(ids).size === 1);
    assert.equal(new Set(found.map((ids) => ids[0])).size, 3);
    assert.deepEqual(await textSequences(path, characters(false), REQUEST), found);
    const more = await textSequences(path, characters(false), { ...REQUEST, sequences: 9 });
    assert.equal(more.length, 4); // and the short ones joined
  });
});

Deno.test("textSequences() cuts plain text; BOS leads where the tokenizer adds it", async () => {
  await withFile("x.txt", "abcdefghijkl", async (path) => {
    const plain = await textSequences(path, characters(false), REQUEST);
    assert.deepEqual(
      plain.flatMap((ids) => [...ids]).sort((a, b) => a - b),
      Array.from("abcdefghijkl", (c) => c.charCodeAt(0)),
    );
    for (const ids of await textSequences(path, characters(true), REQUEST)) assert.equal(ids[0], 1);
  });
});

Deno.test("evaluationSequences() takes consecutive windows from the start", async () => {
  await withFile("x.txt", "abcdefghijkl", async (path) => {
    const found = await evaluationSequences(path, characters(false), { tokens: 8, length: 4 });
    assert.deepEqual(found.map((ids) => String.fromCharCode(...ids)), ["abcd", "efgh"]);
  });
});

Deno.test("textSequences() forgives the document that the size limit cuts off, whatever its letters", async () => {
  await withFile("x.jsonl", `{"text": "é${"a".repeat(20)}"}\n`, async (path) => {
    await Deno.truncate(path, 65 << 20); // zeros up to behind the limit
    assert.equal((await textSequences(path, characters(false), REQUEST)).length, 1);
  });
});

Deno.test("calibration texts that cannot serve are refused", async () => {
  await assert.rejects(textSequences("/does/not/exist.txt", characters(false), REQUEST), invalidRecipe);
  for (const [name, text] of [["x.txt", "abc"], ["x.jsonl", "{no json"], ["x.jsonl", '{"other": 1}']]) {
    await withFile(
      name,
      text,
      (path) => assert.rejects(textSequences(path, characters(false), REQUEST), invalidRecipe),
    );
  }
  await withFile(
    "x.txt",
    "abc",
    (path) =>
      assert.rejects(evaluationSequences(path, characters(false), { tokens: 8, length: 4 }), invalidRecipe),
  );
});
