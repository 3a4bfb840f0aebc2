import assert from "node:assert/strict";
import { LinesFile } from "./lines_file.ts";

Deno.test("rows become lines, and a file that cannot be made is an error at once", async () => {
  const path = await Deno.makeTempFile();
  {
    using file = new LinesFile(path);
    file.write({ a: 1 });
    file.write({ b: "é" });
  }
  assert.equal(await Deno.readTextFile(path), '{"a":1}\n{"b":"é"}\n');
  await Deno.remove(path);
  assert.throws(() => new LinesFile(`${path}/x`), Deno.errors.NotFound);
});

Deno.test("a full disk ends the file and nothing else", async () => {
  const path = await Deno.makeTempFile();
  using file = new LinesFile(path);
  file.write({ a: 1 });
  const { writeSync } = Deno.FsFile.prototype;
  let tries = 0;
  Deno.FsFile.prototype.writeSync = () => {
    tries++;
    throw new Error("No space left on device");
  };
  try {
    file.write({ a: 2 });
    file.write({ a: 3 });
  } finally {
    Deno.FsFile.prototype.writeSync = writeSync;
  }
  assert.equal(tries, 1);
  file.write({ a: 4 });
  assert.equal(await Deno.readTextFile(path), '{"a":1}\n', "the first lines without a gap");
  await Deno.remove(path);
});
