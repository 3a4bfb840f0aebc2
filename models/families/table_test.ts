import assert from "node:assert/strict";
import { familiesMarkdown, familyRows } from "./table.ts";
import { FAMILIES } from "./registry.ts";

const README = new URL("../../README.md", import.meta.url);

Deno.test("familiesMarkdown() has a line for each family of the registry", () => {
  const lines = familiesMarkdown().split("\n");
  assert.equal(lines.length, FAMILIES.length + 2);
  assert.equal(new Set(lines.map((line) => line.length)).size, 1);
  FAMILIES.forEach((family, i) => {
    assert.ok(lines[i + 2].includes(family.models), lines[i + 2]);
    for (const type of family.modelTypes) assert.ok(lines[i + 2].includes(`\`${type}\``), lines[i + 2]);
  });
  assert.deepEqual(familyRows().map((row) => row.family), FAMILIES.map((family) => family.name));
});

Deno.test("the README's table of models is what the registry says", async () => {
  assert.ok(
    (await Deno.readTextFile(README)).includes(`\n${familiesMarkdown()}\n`),
    "README.md is behind the registry: put in what `deno task oatmill families --markdown` prints",
  );
});
