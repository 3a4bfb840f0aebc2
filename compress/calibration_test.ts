import assert from "node:assert/strict";
import { dirname } from "node:path";
import type { Tokenizer } from "../models/tokenizer.ts";
import { OatmillError } from "../errors.ts";
import { evaluationSequences, type TextReader, textSequences } from "./calibration.ts";

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

const reader = (tokenizer: Tokenizer): TextReader => ({ tokenizer: () => tokenizer, vocabSize: 200 });
const READER = reader(characters(false));
/** Of a model that has none. */
const NO_TOKENIZER: TextReader = {
  vocabSize: 200,
  tokenizer: () => {
    throw new OatmillError("invalid_tokenizer", "None");
  },
};
const REQUEST = { sequences: 3, length: 4, seed: 5 };
const invalidRecipe = (e: unknown) => e instanceof OatmillError && e.code === "invalid_recipe";

Deno.test("textSequences() takes one window of each long document, repeatably by seed", async () => {
  const documents = ["aaaaaaaaaa", "bb", "cccccccc", "dddddd", "ee"].map((text) => JSON.stringify({ text }));
  await withFile("x.jsonl", documents.join("\n"), async (path) => {
    const found = await textSequences(path, READER, REQUEST);
    assert.equal(found.length, 3);
    for (const ids of found) assert.ok(ids.length === 4 && new Set(ids).size === 1);
    assert.equal(new Set(found.map((ids) => ids[0])).size, 3);
    assert.deepEqual(await textSequences(path, READER, REQUEST), found);
    const more = await textSequences(path, READER, { ...REQUEST, sequences: 9 });
    assert.deepEqual(more.slice(0, 3), found);
    assert.deepEqual(more[3].toSorted(), Int32Array.of(98, 98, 101, 101)); // the short ones joined
    for (const ids of more.slice(4)) assert.equal(new Set(ids).size, 1); // what else the long ones have
  });
});

Deno.test("textSequences() cuts plain text; BOS leads where the tokenizer adds it", async () => {
  await withFile("x.txt", "abcdefghijkl", async (path) => {
    const plain = await textSequences(path, READER, REQUEST);
    assert.deepEqual(
      plain.flatMap((ids) => [...ids]).sort((a, b) => a - b),
      Array.from("abcdefghijkl", (c) => c.charCodeAt(0)),
    );
    for (const ids of await textSequences(path, reader(characters(true)), REQUEST)) assert.equal(ids[0], 1);
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
    assert.equal((await textSequences(path, READER, REQUEST)).length, 3);
  });
});

Deno.test("calibration texts that cannot serve are refused", async () => {
  await assert.rejects(textSequences("/does/not/exist.txt", READER, REQUEST), invalidRecipe);
  for (
    const [name, text] of [
      ["x.txt", "abc"],
      ["x.jsonl", "{no json"],
      ["x.jsonl", '{"other": 1}'],
      ["x.json", "[[1, 2"],
      ["x.json", '{"text": "abcdefgh"}'],
      ["x.json", "[[1, 2, 3, -4]]"],
      ["x.json", "[[1, 2, 3, 200]]"],
    ]
  ) {
    await withFile(
      name,
      text,
      (path) => assert.rejects(textSequences(path, READER, REQUEST), invalidRecipe),
    );
  }
  await withFile(
    "x.txt",
    "abc",
    (path) =>
      assert.rejects(evaluationSequences(path, characters(false), { tokens: 8, length: 4 }), invalidRecipe),
  );
});

Deno.test("textSequences() reads token ids, without a tokenizer", async () => {
  const ids = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]];
  for (
    const [name, text] of [["x.json", JSON.stringify(ids)], [
      "x.jsonl",
      ids.map((i) => `[${i}]`).join("\n"),
    ]]
  ) {
    await withFile(name, text, async (path) => {
      const found = await textSequences(path, NO_TOKENIZER, REQUEST);
      assert.deepEqual(found.map((i) => [...i]).sort((a, b) => a[0] - b[0]), ids.slice(0, 2));
    });
  }
});

Deno.test("textSequences() reads a folder in one order, whatever it is made in, and follows no links", async () => {
  const files: [string, string][] = [
    ["b/z.jsonl", '{"text": "bbbbbbbb"}\n"cccccc"'],
    ["a.txt", "aaaaaaaa"],
    ["b/c/d.json", '["dddddddd", [101, 101, 101, 101]]'],
    ["ignored.md", "eeeeeeeeee"],
    ["picture.png", "eeeeeeeeee"],
  ];
  const found: Int32Array[][] = [];
  for (const order of [files, files.toReversed()]) {
    const dir = await Deno.makeTempDir();
    for (const [name, text] of order) {
      await Deno.mkdir(`${dir}/${dirname(name)}`, { recursive: true });
      await Deno.writeTextFile(`${dir}/${name}`, text);
    }
    await Deno.writeTextFile(`${dir}.txt`, "ffffffffffff");
    await Deno.symlink(`${dir}.txt`, `${dir}/link.txt`);
    await Deno.symlink(dir, `${dir}/again`);
    found.push(await textSequences(dir, READER, { ...REQUEST, sequences: 5 }));
    await Deno.remove(dir, { recursive: true });
    await Deno.remove(`${dir}.txt`);
  }
  assert.deepEqual(found[0], found[1]);
  assert.deepEqual(found[0].map((ids) => String.fromCharCode(ids[0])).sort(), ["a", "b", "c", "d", "e"]);
});

Deno.test("textSequences() says that images cannot be used, and that a folder has no text", async () => {
  const rejected = async (names: string[], code: string) => {
    const dir = await Deno.makeTempDir();
    for (const name of names) await Deno.writeTextFile(`${dir}/${name}`, "x");
    const path = names.length === 1 ? `${dir}/${names[0]}` : dir;
    const isCode = (e: unknown) => e instanceof OatmillError && e.code === code;
    await assert.rejects(textSequences(path, READER, REQUEST), isCode);
    await Deno.remove(dir, { recursive: true });
  };
  await rejected(["x.PNG"], "unsupported_format");
  await rejected(["x.jpg", "labels.csv"], "unsupported_format");
  await rejected(["x.md", "y.csv"], "invalid_recipe");
});
