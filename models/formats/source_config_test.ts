import assert from "node:assert/strict";
import { encodeSourceConfig, floatFieldsOf, readSourceConfig, withFloatFields } from "./source_config.ts";

Deno.test("whole numbers that were written as floats are written as floats again", async () => {
  const path = await Deno.makeTempFile();
  const text = '{"cap":12.0,"inner":{"factor":1e1,"size":3},"list":[1.0,2],"eps":1e-5}';
  await Deno.writeTextFile(path, text);
  const fields = await floatFieldsOf(path);
  assert.deepEqual(fields, ["cap", "factor"]);
  const written = withFloatFields(JSON.parse(text), fields);
  assert.match(written, /"cap": 12\.0,\n.*\n\s+"factor": 10\.0,\n\s+"size": 3/);
  assert.deepEqual(JSON.parse(written), JSON.parse(text));
  await Deno.remove(path);
});

Deno.test("source_config.json is read back, null where there is none, refused when broken", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/source_config.json`;
  const source = { config: { model_type: "llama" }, floatFields: ["x"], generation: null };
  assert.equal(await readSourceConfig(folder), null);
  await Deno.writeFile(path, encodeSourceConfig(source));
  assert.deepEqual(await readSourceConfig(folder), source);
  await Deno.writeTextFile(path, '{"config":[]}');
  await assert.rejects(readSourceConfig(folder), { code: "invalid_artifact" });
  await Deno.remove(folder, { recursive: true });
});
