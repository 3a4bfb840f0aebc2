import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../../errors.ts";
import {
  bitmask24Tensors,
  bitmaskTensors,
  float32Tensor,
  safetensorsBytes,
  type TensorBytes,
} from "../testing/safetensors_bytes.ts";
import type { TensorSource } from "../tensor_source.ts";
import { CompressedTensors } from "./compressed_tensors.ts";
import { SafetensorsFolder } from "./safetensors_folder.ts";

async function withTensors(
  tensors: readonly TensorBytes[],
  run: (source: TensorSource) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${folder}/model.safetensors`, safetensorsBytes(tensors));
    using files = await SafetensorsFolder.open(folder);
    await run(await CompressedTensors.over(files));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Shape, then values of which about half are 0. */
const matrix = fc.tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 40 })).chain((shape) =>
  fc.tuple(
    fc.constant(shape),
    fc.array(fc.oneof(fc.constant(0), fc.integer({ min: -99, max: 99 })), {
      minLength: shape[0] * shape[1],
      maxLength: shape[0] * shape[1],
    }),
  )
);

Deno.test("sparse-bitmask tensors read as the dense ones they stand for, whole and by rows", async () => {
  const property = fc.asyncProperty(matrix, fc.nat(), fc.nat(), async ([[rows, columns], values], a, b) => {
    const tensors = [...bitmaskTensors("m", [rows, columns], values), float32Tensor("n.weight", [1], [5])];
    await withTensors(tensors, async (source) => {
      assert.deepEqual(source.info("m.weight")?.shape, [rows, columns]);
      assert.deepEqual([...await source.readFloat32("m.weight", 0, values.length)], values);
      const from = a % rows, count = 1 + b % (rows - from);
      assert.deepEqual(
        [...await source.readFloat32("m.weight", from * columns, count * columns)],
        values.slice(from * columns, (from + count) * columns),
      );
      assert.deepEqual([...await source.readFloat32("n.weight", 0, 1)], [5]);
    });
  });
  await fc.assert(property, { numRuns: 60 });
});

Deno.test("sparse-24-bitmask tensors and vectors read likewise", async () => {
  const values = [1, 0, 0, 2, 0, 3, 4, 0, 0, 5, 0, 6, 7, 8, 0, 0];
  await withTensors(
    [...bitmask24Tensors("m", [2, 8], values), ...bitmaskTensors("norm", [3], [1, 0, 2])],
    async (s) => {
      assert.deepEqual([...await s.readFloat32("m.weight", 0, 16)], values);
      assert.deepEqual(s.info("norm.weight")?.shape, [3]);
      assert.deepEqual([...await s.readFloat32("norm.weight", 0, 3)], [1, 0, 2]);
      await assert.rejects(s.readFloat32("m.weight", 4, 8), RangeError);
    },
  );
});

Deno.test("the layout is that of compressed-tensors 0.9.4, byte by byte", async () => {
  const int64 = (...n: bigint[]) => new Uint8Array(BigInt64Array.from(n).buffer);
  // numpy.packbits(mask, axis=-1, bitorder="little"), tensor[mask] in bfloat16, cumsum(counts) - counts
  const tensors: TensorBytes[] = [
    { name: "m.bitmask", dtype: "U8", shape: [2, 2], bytes: Uint8Array.of(0x01, 0x01, 0x08, 0x00) },
    {
      name: "m.compressed",
      dtype: "BF16",
      shape: [3],
      bytes: Uint8Array.of(0xc0, 0x3f, 0x40, 0xc0, 0x00, 0x3e),
    },
    { name: "m.row_offsets", dtype: "I64", shape: [2], bytes: int64(0n, 2n) },
    { name: "m.shape", dtype: "I64", shape: [2], bytes: int64(2n, 9n) },
  ];
  await withTensors(tensors, async (source) => {
    assert.deepEqual(source.info("m.weight")?.type, "BF16");
    const wanted = [[1.5, 0, 0, 0, 0, 0, 0, 0, -3], [0, 0, 0, 0.125, 0, 0, 0, 0, 0]];
    assert.deepEqual([...await source.readFloat32("m.weight", 0, 18)], wanted.flat());
  });
});

const good = (): TensorBytes[] => bitmaskTensors("m", [3, 9], Array.from({ length: 27 }, (_, i) => i % 2));
const hostile: Readonly<Record<string, (tensors: TensorBytes[]) => TensorBytes[]>> = {
  "20 ones, there are 13": (t) => t.with(2, { ...t[2], bytes: Uint8Array.of(255, 1, 255, 1, 3, 0) }),
  "bits beyond its 9 columns": (t) =>
    t.with(2, { ...t[2], bytes: t[2].bytes.map((b, i) => i === 1 ? 2 : b) }),
  "row 1 is at 2": (t) => t.with(3, { ...t[3], bytes: t[3].bytes.map((b, i) => i === 8 ? 2 : b) }),
  "row 2 is at -": (t) => t.with(3, { ...t[3], bytes: t[3].bytes.map((b, i) => i === 23 ? 255 : b) }),
  "must be I64 \\[3\\]": (t) => t.with(3, { ...t[3], shape: [2], bytes: t[3].bytes.slice(8) }),
  '".compressed" values are missing': (t) => t.toSpliced(1, 1),
  '".shape" must be I64': (t) => t.toSpliced(0, 1),
  '".shape" must be I64 \\[2\\]': (t) => t.with(0, { ...t[0], shape: [3], bytes: new Uint8Array(24) }),
  "shape \\[9223372036854776000,9\\] needs": (t) =>
    t.with(0, { ...t[0], bytes: t[0].bytes.map((b, i) => i < 7 ? 255 : i === 7 ? 127 : b) }),
  "shape \\[-1,9\\] needs": (t) => t.with(0, { ...t[0], bytes: t[0].bytes.map((b, i) => i < 8 ? 255 : b) }),
  "needs U8 \\[3,3\\]": (t) => t.with(0, { ...t[0], bytes: t[0].bytes.map((b, i) => i === 8 ? 17 : b) }),
  "bitmask is I8": (t) => t.with(2, { ...t[2], dtype: "I8" }),
  "its dtype is U32": (t) => t.with(1, { ...t[1], dtype: "U32" }),
  "quantised as well": (t) => [...t, float32Tensor("m.weight_scale", [1], [1])],
};
for (const [message, damage] of Object.entries(hostile)) {
  Deno.test(`a sparse tensor that contradicts itself is refused: ${message}`, async () => {
    const attempt = withTensors(damage(good()), async (source) => {
      await source.readFloat32("m.weight", 0, 27);
    });
    await assert.rejects(attempt, (error: unknown) => {
      assert.ok(error instanceof OatmillError && error.message.includes('"m'), String(error));
      assert.match(error.message, new RegExp(message));
      return ["invalid_checkpoint", "unsupported_format"].includes(error.code);
    });
  });
}

Deno.test("any damage to a sparse tensor's data is refused or reads as values of the file", async () => {
  const parts = good();
  const change = fc.tuple(fc.constantFrom(0, 2, 3), fc.nat(), fc.integer({ min: 1, max: 255 }));
  const property = fc.asyncProperty(change, async ([part, at, flip]) => {
    const { bytes } = parts[part], broken = bytes.map((b, i) => i === at % bytes.length ? b ^ flip : b);
    await withTensors(parts.with(part, { ...parts[part], bytes: broken }), async (source) => {
      const { shape } = source.info("m.weight")!;
      const read = await source.readFloat32("m.weight", 0, shape[0] * shape[1]);
      assert.equal(read.reduce((sum, value) => sum + value, 0), 13);
    }).catch((error) => assert.ok(error instanceof OatmillError, String(error)));
  });
  await fc.assert(property, { numRuns: 60 });
});
