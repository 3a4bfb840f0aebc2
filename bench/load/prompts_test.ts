import assert from "node:assert/strict";
import { parseDataset } from "./dataset.ts";
import { parseLengths } from "./lengths.ts";
import { datasetPrompts, type PromptSource, syntheticPrompts } from "./prompts.ts";

const OPTIONS = { output: null, sharedPrefix: null, scale: { base: 0, perWord: 1 }, seed: 1 };
const take = (source: PromptSource, n: number) => Array.from({ length: n }, () => source.next());
const wordsOf = (prompt: unknown) => String(prompt).split(" ");

Deno.test("synthetic prompts have the lengths asked for, in the server's tokens, and repeat with their seed", () => {
  const input = parseLengths("uniform:10-20")!, output = parseLengths("8")!;
  const scale = { base: 5, perWord: 1.25 };
  const prompts = take(syntheticPrompts(input, { ...OPTIONS, scale, output }), 200);
  const tokens = prompts.map((p) => scale.base + scale.perWord * wordsOf(p.prompt).length);
  assert.ok(Math.min(...tokens) >= 10 - 1 && Math.max(...tokens) <= 20 + 1, `${Math.max(...tokens)}`);
  assert.ok(prompts.every((p) => p.outputTokens === 8));
  assert.deepEqual(take(syntheticPrompts(input, { ...OPTIONS, scale, output }), 200), prompts);
  assert.notDeepEqual(take(syntheticPrompts(input, { ...OPTIONS, scale, output, seed: 2 }), 200), prompts);
  assert.equal(new Set(prompts.map((p) => p.prompt)).size, 200);
});

Deno.test("shared prefixes come from so many groups, before what is each prompt's own", () => {
  const sharedPrefix = { tokens: 30, groups: 3 };
  const prompts = take(syntheticPrompts(parseLengths("5")!, { ...OPTIONS, sharedPrefix }), 100);
  const heads = new Set(prompts.map((p) => wordsOf(p.prompt).slice(0, 30).join(" ")));
  assert.equal(heads.size, 3);
  assert.ok(prompts.every((p) => wordsOf(p.prompt).length === 35));
  const rows = [{ prompt: [{ role: "user", content: "hi" }], outputTokens: 2 }];
  const [{ prompt }] = take(datasetPrompts(rows, { ...OPTIONS, sharedPrefix }), 1);
  assert.deepEqual((prompt as readonly { role: string }[]).map((t) => t.role), ["system", "user"]);
});

Deno.test("a dataset's rows all come before one comes again, in an order by the seed", () => {
  const rows = Array.from({ length: 20 }, (_, i) => ({ prompt: `row ${i}`, outputTokens: i + 1 }));
  const prompts = take(datasetPrompts(rows, OPTIONS), 40).map((p) => p.prompt);
  assert.equal(new Set(prompts.slice(0, 20)).size, 20);
  assert.deepEqual(prompts.slice(20), prompts.slice(0, 20));
  assert.notDeepEqual(
    take(datasetPrompts(rows, { ...OPTIONS, seed: 2 }), 20).map((p) => p.prompt),
    prompts.slice(0, 20),
  );
  const output = parseLengths("3")!;
  assert.equal(take(datasetPrompts(rows, { ...OPTIONS, output }), 1)[0].outputTokens, 3);
});

Deno.test("rows are read by the names that datasets use", () => {
  const lines = [
    { prompt: "p", output_tokens: 7 },
    { prompt: [1, 2, 3] },
    { text: "t", completion: "abcdefgh" },
    { instruction: "i", input: "more" },
    { messages: [{ role: "user", content: "u" }, { role: "assistant", content: "abcd" }] },
    {
      conversations: [{ from: "human", value: "h" }, { from: "gpt", value: "abcdabcdabcd" }, {
        from: "human",
        value: "x",
      }],
    },
    "plain",
  ];
  const expected = [
    { prompt: "p", outputTokens: 7 },
    { prompt: [1, 2, 3], outputTokens: null },
    { prompt: "t", outputTokens: 2 },
    { prompt: "i\nmore", outputTokens: null },
    { prompt: [{ role: "user", content: "u" }], outputTokens: 1 },
    {
      prompt: [
        { role: "user", content: "h" },
        { role: "assistant", content: "abcdabcdabcd" },
        { role: "user", content: "x" },
      ],
      outputTokens: null,
    },
    { prompt: "plain", outputTokens: null },
  ];
  assert.deepEqual(
    parseDataset(lines.map((l) => JSON.stringify(l)).join("\r\n") + "\n\n", "a/b.jsonl"),
    expected,
  );
  assert.deepEqual(parseDataset(JSON.stringify(lines), "x.JSON"), expected);
  assert.deepEqual(parseDataset("one\n\n two \n", "x.txt").map((r) => r.prompt), ["one", "two"]);
});

Deno.test("what cannot be read names the line and what it must have", () => {
  for (
    const [text, path, message] of [
      ["{}", "x.csv", /must end with one of \.txt, \.jsonl, \.json/],
      ['"a"\n{oops', "x.jsonl", /x\.jsonl, line 2 is no JSON/],
      ['"a"\n\n{"q": 1}', "x.jsonl", /line 3 has no prompt: it must have "prompt"/],
      ["7", "x.jsonl", /line 1 has no prompt/],
      ['{"messages": [{"role": "assistant", "content": "x"}]}', "x.jsonl", /no prompt/],
      ['{"prompt": [1, "x"]}', "x.jsonl", /no prompt/],
      ["{}", "x.json", /array of rows/],
      ["\n", "x.txt", /holds no prompts/],
    ] as const
  ) assert.throws(() => parseDataset(text, path), message);
});
