import assert from "node:assert/strict";
import fc from "fast-check";
import ort from "onnxruntime-node";
import { openCheckpoint } from "../models/open.ts";
import { linearShapes } from "../models/spec.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { type OrtBits, quantizeNBits, writeOrtLayers } from "./_ort_layers.ts";

for (const bits of [4, 8] as const satisfies OrtBits[]) {
  Deno.test(`quantizeNBits() to ${bits} bits is within half a step, with rows that end within a block`, () => {
    const weights = fc.array(fc.float({ min: -4, max: 4, noNaN: true }), {
      minLength: 2 * 40,
      maxLength: 2 * 40,
    });
    fc.assert(fc.property(weights, (values) => {
      const { codes, scales, blocks, blockBytes } = quantizeNBits(Float32Array.from(values), [2, 40], bits);
      values.forEach((v, at) => {
        const row = Math.floor(at / 40), column = at % 40, block = row * blocks + Math.floor(column / 32);
        const i = column % 32;
        const code = bits === 8
          ? codes[block * blockBytes + i]
          : codes[block * blockBytes + (i >> 1)] >> (i & 1) * 4 & 15;
        const back = (code - 2 ** (bits - 1)) * scales[block];
        assert.ok(Math.abs(back - v) <= scales[block] * 0.501, `${at}: ${back} for ${v}`);
      });
    }));
  });

  oracleTest(`writeOrtLayers() to ${bits} bits computes the layers' products`, "oracles/gguf", async () => {
    const checkpoint = await openCheckpoint(shared("oracles/gguf/tiny_llama_f32.gguf").pathname);
    const folder = await Deno.makeTempDir();
    const { model, inputs, outputs, hiddenSize } = await writeOrtLayers(checkpoint, folder, bits);
    const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
    const input = (width: number) => Float32Array.from({ length: width }, (_, i) => Math.sin(i * i));
    const feeds = Object.fromEntries([
      ...inputs.map((w) => [`x${w}`, new ort.Tensor("float32", input(w), [1, w])]),
      ["head", new ort.Tensor("float32", input(hiddenSize), [1, hiddenSize])],
    ]);
    const results = await session.run(feeds);

    const { spec } = checkpoint;
    const wanted = new Map(outputs.map((w) => [`y${w}`, new Float64Array(w)]));
    wanted.set("logits", new Float64Array(spec.vocabSize));
    const addProduct = async (role: Parameters<typeof checkpoint.read>[0], out: string) => {
      const { data, shape: [dOut, dIn] } = await checkpoint.read(role);
      const x = input(dIn), y = wanted.get(out)!;
      for (let r = 0; r < dOut; r++) for (let c = 0; c < dIn; c++) y[r] += data[r * dIn + c] * x[c];
    };
    for (let b = 0; b < spec.blocks; b++) {
      for (const [name, [dOut]] of Object.entries(linearShapes(spec))) {
        await addProduct(`block.${b}.${name}` as `block.${number}.q`, `y${dOut}`);
      }
    }
    await addProduct("head", "logits");
    for (const [name, values] of wanted) {
      const got = results[name].data as Float32Array;
      const norm = (v: Iterable<number>) => Math.hypot(...v);
      const error = norm(values.map((v, i) => v - got[i])) / norm(values);
      assert.ok(error < ERROR[bits], `${name}: ${error}`);
    }
    await session.release();
    checkpoint.close();
    await Deno.remove(folder, { recursive: true });
  });
}

/** Relative error of products with normal weights: a step of absmax / 7 or / 127 in blocks of 32, and int8 activations. */
const ERROR: Record<OrtBits, number> = { 4: 0.15, 8: 0.015 };
