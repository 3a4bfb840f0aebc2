import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { ROOT } from "../tests/server_process.ts";
import { MarkdownFile, markedBlock, readBlock, wrapped } from "./markdown_file.ts";

const TABLE = "| model | decode tok/s |\n| ----- | ------------ |\n| a     | 1.0          |";

Deno.test("a marked block says by what it was made, and takes the place of the one before", async () => {
  const folder = await Deno.makeTempDir(), path = join(folder, "x.md");
  try {
    const command = "deno task oatmill report MODEL --text a.txt --rows 'dense f32'";
    await (await MarkdownFile.open(path)).write(markedBlock(command, "first"));
    assert.deepEqual(readBlock(await Deno.readTextFile(path)), { command, text: "first" });
    const around = ["# Title\n\n", "\n\nAfter it, $1 and $&.\n"];
    await Deno.writeTextFile(path, around.join((await Deno.readTextFile(path)).trimEnd()));
    await (await MarkdownFile.open(path)).write(markedBlock("$& again", TABLE));
    const text = await Deno.readTextFile(path);
    assert.deepEqual(readBlock(text), { command: "$& again", text: TABLE });
    assert.ok(text.startsWith(around[0]) && text.endsWith(around[1]), text);
    await Deno.writeTextFile(path, "No table of ours");
    await assert.rejects(
      MarkdownFile.open(path),
      (error) => error instanceof OatmillError && error.code === "invalid_request",
    );
    assert.equal(await Deno.readTextFile(path), "No table of ours");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a comment cannot be ended by what the command says", () => {
  assert.equal(readBlock(markedBlock("a --> <b>\nc", "x"))!.command, "a <b> c");
});

Deno.test("marked blocks stand as `deno fmt` leaves them", async () => {
  const text = markedBlock(
    "deno task x",
    `${TABLE}\n\n${wrapped("Perplexity of words, and more. ".repeat(12))}`,
  );
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext", "md", "--config", join(ROOT, "deno.json"), "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  const { stdout } = await child.output();
  assert.equal(new TextDecoder().decode(stdout), text);
});
