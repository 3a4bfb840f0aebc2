import assert from "node:assert/strict";
import fc from "fast-check";
import { GgufFile } from "../models/formats/gguf.ts";
import { parseGgufHeader } from "../models/formats/gguf_header.ts";
import { dequantizers } from "../models/formats/gguf_quants.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { BLOCK_TYPES, type BlockTypeName, quantizeBlocks } from "../models/formats/gguf_blocks.ts";
import { writeGguf } from "./_gguf_writer.ts";

const TYPES = Object.keys(BLOCK_TYPES) as BlockTypeName[];

function roundTrip(type: BlockTypeName, values: Float32Array): Float32Array {
  const out = new Float32Array(values.length);
  dequantizers.get(type)!(quantizeBlocks(type, values), out);
  return out;
}

/**
 * Most error of one weight in a block, from the definition of its scale d: half a step, and where the extreme of one sign
 * has no code of its own (Q4_0 has 7 steps on that side) one step. The scale itself is an f16, and so is the minimum.
 */
const ERROR_STEPS: Record<BlockTypeName, number> = { Q8_0: 0.5, Q4_0: 1, Q4_1: 0.5 };
const STEPS: Record<BlockTypeName, (min: number, max: number) => number> = {
  Q8_0: (min, max) => Math.max(-min, max) / 127,
  Q4_0: (min, max) => Math.max(-min, max) / 8,
  Q4_1: (min, max) => (max - min) / 15,
};
/** Of an f16: 2^-11, on the largest value; and half of the smallest f16, times the largest code. */
const F16_ERROR = 2 ** -11, F16_SMALLEST = 2 ** -25;

/** Weights of any order of size that f16 scales can hold. */
const block = fc.tuple(
  fc.array(fc.float({ min: -1, max: 1, noNaN: true }), { minLength: 32, maxLength: 32 }),
  fc.constantFrom(1e-3, 1, 1000),
).map(([values, scale]) => Float32Array.from(values, (v) => v * scale));

for (const type of TYPES) {
  Deno.test(`${type} blocks read back within their rounding`, () => {
    fc.assert(fc.property(block, (values) => {
      const min = Math.min(...values, 0), max = Math.max(...values, 0);
      const step = STEPS[type](
        type === "Q4_1" ? Math.min(...values) : min,
        type === "Q4_1" ? Math.max(...values) : max,
      );
      const bound = ERROR_STEPS[type] * step * 1.001 + F16_ERROR * 2 * Math.max(-min, max) +
        128 * F16_SMALLEST;
      const back = roundTrip(type, values);
      values.forEach((v, i) =>
        assert.ok(Math.abs(v - back[i]) <= bound, `${i}: ${back[i]} for ${v}, ${bound}`)
      );
    }));
  });

  Deno.test(`${type} keeps zeros`, () => {
    assert.ok(roundTrip(type, new Float32Array(32)).every((v) => v === 0));
  });

  oracleTest(`${type} of its own values has the reference's bytes`, "oracles/gguf", async () => {
    // The reference chose scale and codes for other weights; they are what these must lead to as well.
    using file = await GgufFile.open(shared("oracles/gguf/types.gguf").pathname);
    const name = `${type}.quantized`;
    const count = file.info(name)!.shape.reduce((a, b) => a * b, 1);
    const values = await file.readFloat32(name, 0, count);
    const all = await Deno.readFile(shared("oracles/gguf/types.gguf"));
    const { offset, bytes } = parseGgufHeader(all, all.length, "types.gguf").tensors.get(name)!;
    assert.deepEqual(quantizeBlocks(type, values), all.slice(offset, offset + bytes));
  });

  oracleTest(
    `writeGguf() to ${type} writes a file that reads back as the same model`,
    "oracles/gguf",
    async () => {
      const source = shared("oracles/gguf/tiny_llama_f32.gguf").pathname;
      const out = await Deno.makeTempFile({ suffix: ".gguf" });
      await writeGguf(source, out, type);
      using a = await GgufFile.open(source);
      using b = await GgufFile.open(out);
      assert.deepEqual(b.metadata, a.metadata);
      for (const name of ["token_embd.weight", "blk.0.attn_norm.weight", "blk.1.ffn_down.weight"]) {
        const n = a.info(name)!.shape.reduce((x, y) => x * y, 1);
        assert.deepEqual(b.info(name)!.shape, a.info(name)!.shape);
        const isNorm = name.includes("norm");
        assert.equal(b.info(name)!.type, isNorm ? "F32" : type);
        const values = await a.readFloat32(name, 0, n);
        assert.deepEqual(await b.readFloat32(name, 0, n), isNorm ? values : roundTrip(type, values));
      }
      await Deno.remove(out);
    },
  );
}

oracleTest("writeGguf() copies blocks that have the wanted type", "oracles/gguf", async () => {
  const source = shared("oracles/gguf/tiny_llama_q5_0_q4_0.gguf").pathname;
  const out = await Deno.makeTempFile({ suffix: ".gguf" });
  await writeGguf(source, out, "Q4_0");
  using a = await GgufFile.open(source);
  using b = await GgufFile.open(out);
  for (const name of ["output.weight", "blk.0.ffn_down.weight"]) {
    const n = a.info(name)!.shape.reduce((x, y) => x * y, 1);
    assert.deepEqual(await b.readFloat32(name, 0, n), await a.readFloat32(name, 0, n));
  }
  assert.equal(b.info("token_embd.weight")!.type, "Q4_0");
  await Deno.remove(out);
});

Deno.test("quantizeBlocks() refuses part of a block", () => {
  assert.throws(() => quantizeBlocks("Q4_0", new Float32Array(33)), RangeError);
});
