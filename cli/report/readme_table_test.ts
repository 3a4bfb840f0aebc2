/** The README's results are what `report` writes, with the command that made them; they are not made again here. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ROOT } from "../../tests/server_process.ts";
import { readBlock } from "../markdown_file.ts";

const block = readBlock(await Deno.readTextFile(join(ROOT, "README.md")));
const cellsOf = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());

Deno.test({
  name: "the README's results have the shape that `report` writes (once it has some between marks)",
  ignore: block === null,
  fn() {
    const { command, text } = block!, lines = text.split("\n").filter((line) => line.startsWith("|"));
    assert.match(command, /^deno task oatmill report /);
    const [head, rule, ...rows] = lines.map(cellsOf);
    const tasks = (/--tasks ([\w,-]+)/.exec(command)?.[1] ?? "").split(",").filter(Boolean);
    assert.deepEqual(
      head.slice(0, 3 + tasks.length),
      ["model", "packed", "perplexity", ...tasks.map((t) => `${t} %`)],
    );
    assert.ok(rule.every((cell) => /^-+$/.test(cell)));
    for (const row of rows) {
      assert.equal(row.length, head.length, row[0]);
      assert.match(row[1], /^[\d.]+ MB/);
      assert.ok(Number(row[2]) > 1, row[0]);
    }
    assert.match(text, /^Perplexity of \d+ tokens of /m);
  },
});
