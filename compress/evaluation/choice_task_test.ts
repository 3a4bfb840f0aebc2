import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { readTask } from "./choice_task.ts";

async function withFile(name: string, text: string, run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(folder, name), text);
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
const instruction = (text: string, answer: string) => ({ instruction: text, input: "", output: "", answer });

Deno.test("readTask() reads questions and contexts, one a line", async () => {
  const lines = [
    { question: "What falls?", choices: ["rain", "sky"], answer: 0 },
    { context: "The opposite of hot is", choices: ["warm", "cold", "red"], answer: 1, more: "ignored" },
  ].map((q) => JSON.stringify(q)).join("\n\n") + "\n";
  await withFile("mine.jsonl", lines, async (folder) => {
    assert.deepEqual(await readTask(folder, "mine"), [
      { context: "Question: What falls?\nAnswer:", choices: ["rain", "sky"], answer: 0 },
      { context: "The opposite of hot is", choices: ["warm", "cold", "red"], answer: 1 },
    ]);
  });
});

Deno.test("readTask() reads instructions, also of several lines, and leaves out what has no right choice", async () => {
  const items = [
    instruction(
      "Please choose: Why: so?\n\nAnswer1: a b Answer2: c Answer3:  d \n\nAnswer format: answer1",
      "answer3",
    ),
    instruction(
      "Please choose: Q\n\nSolution1: x\nand y\n\nSolution2: z\n\nAnswer format: solution1",
      "solution1",
    ),
    instruction("Please choose: Q\n\nAnswer1: x Answer2: z\n\nAnswer format: answer1", "answer3"),
  ];
  await withFile("openbookqa.test.json", JSON.stringify(items), async (folder) => {
    assert.deepEqual(await readTask(folder, "openbookqa"), [
      { context: "Why: so?", choices: ["a b", "c", "d"], answer: 2 },
      { context: "Q", choices: ["x\nand y", "z"], answer: 0 },
    ]);
  });
});

Deno.test("readTask() says what is wrong with a file, and where", async () => {
  const line = (fields: object) =>
    JSON.stringify({ question: "Q", choices: ["a", "b"], answer: 0, ...fields });
  const cases: [text: string, message: RegExp][] = [
    ["", /no questions/],
    [`${line({})}\n{`, /line 2 .*not JSON/],
    [line({ choices: ["a"] }), /line 1 .*choices/],
    [line({ answer: 2 }), /"answer" must be an index/],
    [line({ context: "C" }), /either "question" or "context"/],
  ];
  for (const [text, message] of cases) {
    await withFile("mine.jsonl", text, async (folder) => {
      await assert.rejects(readTask(folder, "mine"), { code: "invalid_request", message });
    });
  }
  await withFile("piqa.test.json", JSON.stringify([instruction("Nothing", "x")]), async (folder) => {
    await assert.rejects(readTask(folder, "piqa"), { code: "invalid_request", message: /item 0/ });
    await assert.rejects(readTask(folder, "arc_easy"), { message: /neither|nor "ARC-Easy\.test\.json"/ });
  });
});

oracleTest("readTask() reads the three tasks whole", "data/zeroshot", async () => {
  const folder = fileURLToPath(shared("data/zeroshot"));
  const counts = { arc_easy: 2376, piqa: 1838, openbookqa: 500 };
  for (const [name, count] of Object.entries(counts)) {
    const questions = await readTask(folder, name);
    assert.equal(questions.length, count, name);
    assert.ok(questions.every((q) => q.choices.length >= 2 && q.choices.every((c) => c.trim() !== "")));
  }
  const [first] = await readTask(folder, "arc_easy");
  assert.equal(
    first.context,
    "Question: Which statement best explains why photosynthesis is the foundation of most food webs?\nAnswer:",
  );
  assert.deepEqual([first.choices.length, first.choices[3], first.answer], [
    4,
    "The producers in all ecosystems are plants.",
    0,
  ]);
});
