import assert from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import { invalidInput } from "./errors.ts";
import { nonEmptyStrings, strings, tokenIds, tokenLists } from "./lists.ts";

const schema = z.object({ prompt: z.union([z.string(), strings, tokenIds, tokenLists]) });
const refusal = (prompt: unknown) => {
  const { error } = schema.safeParse({ prompt });
  const { message, param } = invalidInput(error!);
  return { message, param };
};

Deno.test("lists pass what they should and name the first wrong element", () => {
  for (const prompt of ["", "a", ["a", ""], [1, 0], [[1], [2, 3]]]) {
    assert.deepEqual(schema.parse({ prompt }), { prompt });
  }
  for (const prompt of [["a", 1], [0, 1.5, -1], [[1], []], [1, "a"]]) {
    assert.equal(refusal(prompt).param, "prompt.1", JSON.stringify(prompt));
  }
  assert.equal(refusal([0, 1.5]).message, 'Invalid value of "prompt.1": expected a token id');
  assert.equal(refusal([]).param, "prompt");
  assert.match(refusal(5).message, /expected string or array/);
  assert.ok(!nonEmptyStrings.safeParse(["a", ""]).success);
});

Deno.test("a long list of wrong elements has one complaint", () => {
  const { error } = schema.safeParse({ prompt: Array(200_000).fill(-1) });
  assert.ok(JSON.stringify(error!.issues).length < 2_000);
});
