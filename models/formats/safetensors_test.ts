import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../../errors.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { SafetensorsFolder } from "./safetensors_folder.ts";
import {
  headerLength,
  LENGTH_BYTES,
  parseSafetensorsHeader,
  type SafetensorsDtype,
  type SafetensorsEntry,
  safetensorsHeader,
  tensorBytes,
} from "./safetensors_header.ts";

type Spec = readonly [name: string, dtype: SafetensorsDtype, shape: number[]];

function place(tensors: readonly Spec[]): SafetensorsEntry[] {
  let end = 0;
  return tensors.map(([name, dtype, shape]) => {
    const begin = end;
    end += tensorBytes(dtype, shape);
    return { name, dtype, shape, begin, end };
  });
}

const tensor = fc.tuple(
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }).filter((name) => name !== "__metadata__"),
  fc.constantFrom<SafetensorsDtype>("F32", "F16", "BF16", "I64", "U8"),
  fc.array(fc.nat(5), { maxLength: 4 }),
);
const tensors = fc.uniqueArray(tensor, { selector: ([name]) => name, maxLength: 8 });

Deno.test("parseSafetensorsHeader() reads back what safetensorsHeader() wrote", () => {
  fc.assert(fc.property(tensors, fc.dictionary(fc.string(), fc.string()), (specs, metadata) => {
    const entries = place(specs);
    const dataBytes = entries.at(-1)?.end ?? 0;
    const bytes = safetensorsHeader(entries, metadata);
    assert.equal(bytes.length % 8, 0);
    assert.equal(headerLength(bytes, bytes.length + dataBytes, "test"), bytes.length - LENGTH_BYTES);
    const read = parseSafetensorsHeader(bytes.subarray(LENGTH_BYTES), dataBytes, "test");
    const byName = (list: SafetensorsEntry[]) => new Map(list.map((entry) => [entry.name, entry]));
    assert.deepEqual(byName(read), byName(entries));
  }));
});

Deno.test("parseSafetensorsHeader() survives any damage with an OatmillError", () => {
  const entries = place([["a", "F32", [2, 2]], ["b", "BF16", [3]]]);
  const json = safetensorsHeader(entries, { format: "pt" }).subarray(LENGTH_BYTES);
  const damage = fc.array(fc.tuple(fc.nat(json.length - 1), fc.integer({ min: 32, max: 126 })), {
    minLength: 1,
    maxLength: 5,
  });
  fc.assert(
    fc.property(damage, (changes) => {
      const broken = json.slice();
      for (const [at, byte] of changes) broken[at] = byte;
      try {
        parseSafetensorsHeader(broken, 22, "test");
      } catch (error) {
        assert.ok(error instanceof OatmillError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

function refusal(header: unknown, dataBytes: number): string {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  try {
    parseSafetensorsHeader(json, dataBytes, "test");
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof OatmillError);
    return error.message;
  }
}

Deno.test("parseSafetensorsHeader() says what is wrong", () => {
  const of = (shape: unknown, data_offsets: unknown, dtype = "F32") => ({
    t: { dtype, shape, data_offsets },
  });
  assert.match(refusal(of([2], [0, 8]), 8), /accepted/);
  assert.match(refusal(of([2], [0, 4]), 4), /shape \[2\] of F32 needs 8 bytes/);
  assert.match(refusal(of([2], [0, 8]), 7), /truncated/);
  assert.match(refusal(of([2], [0, 8]), 9), /trailing/);
  assert.match(refusal(of([2], [4, 12]), 12), /gap/);
  assert.match(refusal(of([2], [8, 0]), 8), /offset/);
  assert.match(refusal(of([2], [0, 8], "F7"), 8), /F7/);
  assert.match(
    refusal(
      '{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
      0,
    ),
    /duplicate/,
  );
  assert.match(refusal({ __metadata__: { a: 1 } }, 0), /__metadata__/);
});

async function withFile(bytes: Uint8Array, run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  await Deno.writeFile(`${folder}/model.safetensors`, bytes);
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function fileOf(dtype: SafetensorsDtype, data: Uint8Array): Uint8Array {
  const shape = [data.length / tensorBytes(dtype, [1])];
  const header = safetensorsHeader(place([["t", dtype, shape]]));
  return new Uint8Array([...header, ...data]);
}

Deno.test("readFloat32() widens every float type, whole or in part", async () => {
  const values = [0, -0, 1, -2.5, 0.0009765625, 65504];
  const f16 = new Uint8Array(new Float16Array(values).buffer);
  const f32 = new Uint8Array(new Float32Array(values).buffer);
  const f64 = new Uint8Array(new Float64Array(values).buffer);
  for (const [dtype, data] of [["F16", f16], ["F32", f32], ["F64", f64]] as const) {
    await withFile(fileOf(dtype, data), async (folder) => {
      using file = await SafetensorsFile.open(`${folder}/model.safetensors`);
      assert.deepEqual([...await file.readFloat32("t", 0, 6)], values);
      assert.deepEqual([...await file.readFloat32("t", 2, 3)], values.slice(2, 5));
      await assert.rejects(file.readFloat32("t", 4, 3), RangeError);
    });
  }
  const bf16 = Uint8Array.of(0x80, 0x3f, 0x20, 0xc0, 0x80, 0x7f); // 1, -2.5, infinity
  await withFile(fileOf("BF16", bf16), async (folder) => {
    using file = await SafetensorsFile.open(`${folder}/model.safetensors`);
    assert.deepEqual([...await file.readFloat32("t", 0, 3)], [1, -2.5, Infinity]);
  });
  const bytes = [["F8_E4M3", Uint8Array.of(0x38, 0xc2, 0x01)], ["F8_E5M2", Uint8Array.of(0x3c, 0xc1, 0x18)]];
  for (const [dtype, data] of bytes as [SafetensorsDtype, Uint8Array][]) {
    await withFile(fileOf(dtype, data), async (folder) => {
      using file = await SafetensorsFile.open(`${folder}/model.safetensors`);
      assert.deepEqual([...await file.readFloat32("t", 0, 3)], [1, -2.5, 2 ** -9]);
    });
  }
});

Deno.test("readFloat32() names file, tensor and dtype it does not read", async () => {
  for (const dtype of ["BOOL", "U8", "I8", "I32", "I64", "F8_E8M0", "C64"] as const) {
    await withFile(fileOf(dtype, new Uint8Array(16)), async (folder) => {
      using source = await SafetensorsFolder.open(folder);
      await assert.rejects(source.readFloat32("t", 0, 1), {
        code: "unsupported_format",
        message: new RegExp(`"t" of "model.safetensors".*${dtype}`),
      });
    });
  }
  await withFile(fileOf("F32", new Uint8Array(16)), async (folder) => {
    using source = await SafetensorsFolder.open(folder);
    await assert.rejects(source.readFloat32("u", 0, 1), {
      code: "invalid_checkpoint",
      message: /"u".*missing/,
    });
  });
});

Deno.test("readFloat32() refuses 8-bit weights whose scales stand beside them", async () => {
  const header = safetensorsHeader(place([["a.weight", "F8_E4M3", [4]], ["a.weight_scale", "F32", [1]]]));
  await withFile(new Uint8Array([...header, ...new Uint8Array(8)]), async (folder) => {
    using source = await SafetensorsFolder.open(folder);
    await assert.rejects(source.readFloat32("a.weight", 0, 4), {
      code: "unsupported_format",
      message: /"a\.weight".*scales in "a\.weight_scale"/,
    });
  });
});

Deno.test("reads that overlap in time give their own bytes", async () => {
  const data = new Uint8Array(new Float32Array(4096).map((_, i) => i).buffer);
  await withFile(fileOf("F32", data), async (folder) => {
    using file = await SafetensorsFile.open(`${folder}/model.safetensors`);
    const parts = await Promise.all(Array.from({ length: 64 }, (_, i) => file.readFloat32("t", i * 64, 64)));
    parts.forEach((part, i) => assert.equal(part[5], i * 64 + 5));
  });
});
