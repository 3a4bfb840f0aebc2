import assert from "node:assert/strict";
import { join } from "node:path";
import { DEFAULT_MODEL } from "../models/testing/artifact.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { exportModel } from "./export.ts";
import { EXPORT_FORMATS, TYPES_OF } from "./formats.ts";
import { inFolder } from "./testing/sparse_low_rank.ts";

Deno.test("exportModel() writes every format, says what, and refuses what is there already", () =>
  inFolder(async (folder) => {
    const formats = EXPORT_FORMATS.filter((format) => format !== "peft"); // which needs another model: peft_test.ts
    for (const to of formats) {
      const out = join(folder, to), steps: number[] = [];
      const options = { model: DEFAULT_MODEL, to, out, onProgress: (done: number) => steps.push(done) };
      const { files, bytes, type } = await exportModel(options);
      assert.equal(type, TYPES_OF[to][0]);
      const { isFile, size } = await Deno.stat(out);
      const sizes = isFile ? [size] : files.map((name) => Deno.statSync(join(out, name)).size);
      assert.ok(sizes.reduce((a, b) => a + b) > bytes);
      assert.deepEqual(steps, steps.map((_, i) => i + 1));
      await assert.rejects(exportModel(options), { code: "conflict" });
    }
    assert.equal([...Deno.readDirSync(folder)].length, formats.length);
  }));

oracleTest("exportModel() refuses encoders and graphs", "oracles/bert", () =>
  inFolder(async (folder) => {
    const refused = { code: "unsupported_format", message: /only decoders/ }, out = join(folder, "out");
    const bert = shared("oracles/bert").pathname, graph = join(folder, "graph");
    await assert.rejects(exportModel({ model: bert, to: "safetensors", out }), refused);
    await Deno.mkdir(graph);
    await Deno.writeTextFile(join(graph, "oatmill.json"), JSON.stringify({ kind: "onnx_graph" }));
    await assert.rejects(exportModel({ model: graph, to: "onnx", out }), refused);
  }));

Deno.test("exportModel() refuses types and options of other formats", async () => {
  const model = DEFAULT_MODEL, out = "/nowhere/out";
  await assert.rejects(exportModel({ model, to: "onnx", out, type: "q8_0" }), {
    code: "unsupported_format",
    message: /takes f32/,
  });
  await assert.rejects(exportModel({ model, to: "gguf", out, parts: true }), { code: "invalid_request" });
  await assert.rejects(exportModel({ model, to: "gguf", out }), { code: "storage_failed" });
  await assert.rejects(exportModel({ model: "/nowhere", to: "gguf", out }), { code: "invalid_checkpoint" });
});
