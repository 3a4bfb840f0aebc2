import assert from "node:assert/strict";
import { OatmillError } from "../../errors.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import { openOnnx } from "./open_onnx.ts";

/** The manifest asks for 2 s of every file; ten times as much passes on a machine that is shared. */
const MAX_MS = 20_000;

interface Attack {
  readonly file: string;
  readonly expect: string;
  readonly error_should_mention: string;
}

oracleTest("openOnnx() refuses hostile files", "oracles/attacks/onnx", async () => {
  const { files } = JSON.parse(await Deno.readTextFile(shared("oracles/attacks/MANIFEST.json")));
  const attacks = (files as Attack[]).filter(({ file }) => file.startsWith("onnx/"));
  assert.equal(attacks.length, 14);
  for (const { file, expect, error_should_mention } of attacks) {
    assert.equal(expect, "refuse");
    const start = performance.now();
    const error = await openOnnx(shared(`oracles/attacks/${file}`).pathname).then(() => null, (e) => e);
    assert.ok(performance.now() - start < MAX_MS, `${file} took too long`);
    assert.ok(error instanceof OatmillError, `${file}: ${error}`);
    assert.match(error.message, new RegExp(error_should_mention, "i"), file);
    assert.ok(error.message.includes(file.slice("onnx/".length)), "the message names the file");
    assert.doesNotMatch(error.message, /root:/);
  }
});

oracleTest("openOnnx() brings external values in", "oracles/onnx", async () => {
  for (const name of ["mlp", "mlp_external", "conv_shared", "vit_dynamo", "vit_torchscript"]) {
    const { graph } = await openOnnx(shared(`oracles/onnx/${name}.onnx`).pathname);
    assert.ok(
      graph.initializer.every(({ rawData, dataLocation }) => rawData.length > 0 && dataLocation === 0),
    );
  }
});

oracleTest("openOnnx() counts external values against the limit", "oracles/onnx", async () => {
  const path = shared("oracles/onnx/mlp_external.onnx").pathname;
  await assert.rejects(openOnnx(path, { maxBytes: 60_000 }), { code: "too_large" });
  await assert.rejects(openOnnx(path, { maxBytes: 800 }), { code: "too_large" });
  await openOnnx(path, { maxBytes: 66_100 });
});
