import assert from "node:assert/strict";
import { parseJsonObject, readJsonFile } from "./json_file.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const parse = (data: Uint8Array) => parseJsonObject(data, "config.json", "invalid_config");

Deno.test("parseJsonObject() drops a byte order mark and keeps prototypes", () => {
  assert.deepEqual(parse(bytes('\ufeff{"a":1}')), { a: 1 });
  const value = parse(bytes('{"__proto__":{"polluted":1}}'));
  assert.equal(Reflect.get({}, "polluted"), undefined);
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
});

Deno.test("parseJsonObject() says what the text is not", () => {
  assert.throws(() => parse(Uint8Array.of(0xff, 0xfe, 0x7b)), { code: "invalid_config", message: /UTF-8/ });
  assert.throws(() => parse(bytes('{"a":NaN}')), { code: "invalid_config", message: /not valid JSON/ });
  for (const text of ["[]", "null", "5", '"x"']) {
    assert.throws(() => parse(bytes(text)), { message: /object/ });
  }
});

Deno.test("readJsonFile() gives null for a missing file and refuses folders and large files", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/a.json`, '{"a":1}');
  assert.equal(await readJsonFile(`${folder}/b.json`, "invalid_config"), null);
  assert.deepEqual(await readJsonFile(`${folder}/a.json`, "invalid_config"), { a: 1 });
  await assert.rejects(readJsonFile(folder, "invalid_config"), { message: /regular file/ });
  await assert.rejects(readJsonFile(`${folder}/a.json`, "invalid_config", 3), { message: /7 bytes/ });
  await Deno.remove(folder, { recursive: true });
});
