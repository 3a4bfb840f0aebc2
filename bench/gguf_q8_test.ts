import assert from "node:assert/strict";
import { GgufFile } from "../models/formats/gguf.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { quantizeQ8, writeGgufQ8 } from "./_gguf_q8.ts";

Deno.test("quantizeQ8() keeps zeros and is within half a step elsewhere", () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => i < 32 ? 0 : Math.sin(i) * 3);
  const bytes = quantizeQ8(values);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 64; i++) {
    const block = Math.floor(i / 32) * 34;
    const scale = view.getFloat16(block, true);
    const value = view.getInt8(block + 2 + i % 32) * scale;
    assert.ok(Math.abs(value - values[i]) <= scale * 0.51 + 0.003, `${i}: ${value} for ${values[i]}`);
  }
});

oracleTest("writeGgufQ8() writes a file that reads back as the same model", "oracles/gguf", async () => {
  const source = shared("oracles/gguf/tiny_llama_f32.gguf").pathname;
  const out = await Deno.makeTempFile({ suffix: ".gguf" });
  await writeGgufQ8(source, out);
  using a = await GgufFile.open(source);
  using b = await GgufFile.open(out);
  assert.deepEqual(b.metadata, a.metadata);
  for (const name of ["token_embd.weight", "blk.0.attn_norm.weight", "blk.1.ffn_down.weight"]) {
    const n = a.info(name)!.shape.reduce((x, y) => x * y, 1);
    assert.deepEqual(b.info(name)!.shape, a.info(name)!.shape);
    assert.equal(b.info(name)!.type, name.includes("norm") ? "F32" : "Q8_0");
    const x = await a.readFloat32(name, 0, n), y = await b.readFloat32(name, 0, n);
    const peak = x.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    x.forEach((v, i) => assert.ok(Math.abs(v - y[i]) <= peak / 127));
  }
  await Deno.remove(out);
});
