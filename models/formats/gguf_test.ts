import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../../errors.ts";
import { ggufBytes } from "../testing/gguf_bytes.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import { GgufFile } from "./gguf.ts";
import { NeedMoreBytes } from "./gguf_cursor.ts";
import { parseGgufHeader } from "./gguf_header.ts";

async function checkTypes(name: string): Promise<void> {
  const { tensors } = JSON.parse(await Deno.readTextFile(shared(`oracles/gguf/${name}.json`)));
  const reference = new Float32Array((await Deno.readFile(shared(`oracles/gguf/${name}.f32`))).buffer);
  using file = await GgufFile.open(shared(`oracles/gguf/${name}.gguf`).pathname);
  for (const [tensor, { offset_floats, count, shape_rows_cols }] of Object.entries<TypeCase>(tensors)) {
    assert.deepEqual(file.info(tensor)?.shape, shape_rows_cols);
    const values = await file.readFloat32(tensor, 0, count);
    assert.deepEqual(values, reference.slice(offset_floats, offset_floats + count), tensor);
    const [row] = shape_rows_cols.slice(1);
    assert.deepEqual(
      await file.readFloat32(tensor, row, row),
      values.slice(row, 2 * row),
      `row 1 of ${tensor}`,
    );
  }
}

interface TypeCase {
  readonly offset_floats: number;
  readonly count: number;
  readonly shape_rows_cols: number[];
}

oracleTest(
  "readFloat32() gives the bits of the reference for every type",
  "oracles/gguf",
  () => checkTypes("types"),
);

oracleTest(
  "readFloat32() gives the bits of the reference for non-linear and ternary types",
  "oracles/gguf",
  () => checkTypes("types_optional"),
);

Deno.test("readFloat32() names a type it does not read", async () => {
  const iq2_xxs = 16, path = await Deno.makeTempFile();
  const bytes = smallFile("t", "k", "v", new Array(256).fill(0), iq2_xxs);
  try {
    await Deno.writeFile(path, bytes);
    using file = await GgufFile.open(path);
    await assert.rejects(file.readFloat32("t", 0, 256), { code: "unsupported_format", message: /IQ2_XXS/ });
  } finally {
    await Deno.remove(path);
  }
});

oracleTest("metadata keeps types and precision", "oracles/gguf", async () => {
  using file = await GgufFile.open(shared("oracles/gguf/types.gguf").pathname);
  assert.deepEqual(file.metadata.get("test.array.str"), ["a", "é", ""]);
  assert.deepEqual([...file.metadata.get("test.array.u32") as Uint32Array], [1, 2, 3]);
  assert.equal(file.metadata.get("test.u64"), 9007199254740993n);
  assert.equal(file.metadata.get("test.i64"), -5);
  assert.equal(file.metadata.get("test.i8"), -1);
  assert.equal(file.metadata.get("test.f64"), 0.1);
  assert.equal(file.metadata.get("test.bool"), true);
});

/** One metadata entry, one tensor (F32 unless its header is to lie). */
const smallFile = (name: string, key: string, value: string, values: readonly number[], type = 0) =>
  ggufBytes({ [key]: value }, [{ name, shape: [values.length], values, type }]);

const wellFormed = fc.string({ unit: "grapheme", maxLength: 40 });

Deno.test("parseGgufHeader() reads back what was written", () => {
  fc.assert(
    fc.property(
      wellFormed,
      wellFormed,
      wellFormed,
      fc.array(fc.float({ noNaN: true }), { minLength: 1 }),
      (name, key, value, values) => {
        const bytes = smallFile(name, key, value, values);
        const { metadata, tensors } = parseGgufHeader(bytes, bytes.length, "test");
        assert.equal(metadata.get(key), value);
        assert.deepEqual(tensors.get(name)?.shape, [values.length]);
      },
    ),
  );
});

Deno.test("parseGgufHeader() survives any damage with an OatmillError", () => {
  const bytes = smallFile("token_embd.weight", "general.architecture", "llama", [1, 2, 3, 4]);
  const damage = fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(damage, fc.nat(bytes.length), (changes, cut) => {
      const broken = bytes.slice(0, bytes.length - cut);
      for (const [at, byte] of changes) broken[at] = byte;
      try {
        parseGgufHeader(broken, broken.length, "test");
      } catch (error) {
        assert.ok(error instanceof OatmillError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("parseGgufHeader() asks for more bytes when only the prefix ends", () => {
  const bytes = smallFile("token_embd.weight", "general.architecture", "llama", [1, 2, 3, 4]);
  for (let n = 0; n < 100; n++) {
    assert.throws(() => parseGgufHeader(bytes.subarray(0, n), bytes.length, "test"), NeedMoreBytes);
  }
});
