/** From an artifact to what is trained and back. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { MAX_HALF_WINDOWS, type Shape2, type WindowCount } from "../../kernels/layout.ts";
import { assignWindows, decode, packWindows, unpack, unpackCoded } from "../../kernels/packers.ts";
import { OatmillError } from "../../errors.ts";
import { openArtifact } from "../../models/formats/artifact.ts";
import { openCheckpoint } from "../../models/open.ts";
import { DEFAULT_MODEL, writeArtifact } from "../../models/testing/artifact.ts";
import { randomCheckpoint } from "../../models/testing/random_checkpoint.ts";
import { SMALL_DECODER } from "../../models/testing/small_spec.ts";
import { linearShapes } from "../../models/spec.ts";
import { matrix } from "../linalg/matrix.ts";
import { packCodes } from "../quantize.ts";
import { GRIDS } from "../quantizers/grid.ts";
import { nearest } from "../quantizers/nearest.ts";
import { requantise } from "../quantizers/requantise.ts";
import { seededRandom } from "../random.ts";
import { writeSmallArtifact } from "./testing/small_artifact.ts";
import { readTrainable } from "./read_model.ts";
import { writeRecovered } from "./write_model.ts";

const counts: fc.Arbitrary<WindowCount> = fc.oneof(
  fc.record({ windows: fc.integer({ min: 1, max: 15 }) }),
  fc.record({ windows: fc.integer({ min: 1, max: MAX_HALF_WINDOWS }), halves: fc.constant(true as const) }),
);

Deno.test("requantise() puts a mask whose values moved anywhere into the windows it came from", () => {
  fc.assert(fc.property(
    counts,
    fc.constantFrom<4 | 8>(4, 8),
    fc.integer({ min: 1, max: 4 }),
    fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 300 })),
    fc.nat(),
    (count, bits, blockChunks, shape: Shape2, seed) => {
      const random = seededRandom(seed), format = { kind: "windows", ...count, bits, blockChunks } as const;
      const W = Float32Array.from({ length: shape[0] * shape[1] }, () => random.normal());
      const mask = assignWindows(W.map(Math.abs), shape, format);
      const bytes = packWindows(W.map((w, i) => mask[i] ? w : 0), shape, format);
      const kept = unpack(format, bytes, shape);
      const moved = Float32Array.from(kept, (w) => w === 0 ? 0 : random.normal());
      const before = unpackCoded(format, bytes, shape), grid = GRIDS[bits === 8 ? "int8" : "int4"];
      const packed = packCodes(
        "s",
        format,
        requantise(matrix(...shape, moved), { before, grid }),
      );
      const found = unpack(format, packed.bytes, shape);
      assert.ok(found.every((w, i) => w === 0 || kept[i] !== 0), "an entry where none was");
      const plain = nearest(matrix(...shape, moved), { grid, runColumns: before.runColumns });
      assert.ok(squaredError(found, moved) <= 1.000001 * squaredError(decode(plain), moved) + 1e-30);
    },
  ));
});

Deno.test("requantise() gives values that did not move the codes they had", () => {
  fc.assert(fc.property(fc.constantFrom("int8", "int5", "int4", "int2"), fc.nat(), (values, seed) => {
    const random = seededRandom(seed), grid = GRIDS[values as "int8"];
    const codes = Int8Array.from({ length: 1000 }, () => grid.min + random.below(grid.max - grid.min + 1));
    // Scales of any size and sign, exact in bf16.
    const scales = Float32Array.from(
      { length: 20 },
      () => (random.below(128) + 128) * 2 ** -12 * (random.below(2) ? 1 : -1),
    );
    const before = { rows: 5, cols: 200, codes, scales, runColumns: 64 };
    const columns = Float32Array.from({ length: 200 }, () => Math.exp(random.normal()));
    const W = matrix(5, 200);
    codes.forEach((code, i) => {
      const real = Math.fround(
        Math.fround(code * scales[Math.floor(i / 200) * 4 + Math.floor(i % 200 / 64)]) * columns[i % 200],
      );
      W.data[i] = real * Math.fround(1 / columns[i % 200]); // as the artifact's column scales do
    });
    const found = requantise(W, { before, grid });
    assert.deepEqual(found.codes, codes);
    assert.deepEqual(found.scales, scales);
  }));
});

const squaredError = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0);

const SPEC = SMALL_DECODER;

async function inFolder(use: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await use(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("an artifact whose parameters nobody trained becomes the same artifact", () =>
  inFolder(async (dir) => {
    const source = join(dir, "source"), checkpoint = randomCheckpoint(SPEC);
    await writeSmallArtifact(source, checkpoint);
    const artifact = await openArtifact(source), model = await readTrainable(artifact, checkpoint);
    const header = await writeRecovered(artifact, model, {
      out: join(dir, "out"),
      header: { name: "other" },
    });
    const again = await openArtifact(join(dir, "out"));
    assert.deepEqual(again.header, header);
    assert.equal(header.name, "other");
    for (const field of ["layers", "tensors", "recipe", "spec"] as const) {
      assert.deepEqual(header[field], artifact.header[field]);
    }
    assert.deepEqual(await weightsOf(again), await weightsOf(artifact));

    model.blocks[1].layers[0].kept.values[0] *= -1;
    model.blocks[0].norms.attnNorm[3] = 7;
    model.blocks[0].layers[4].U[5] += 1;
    await writeRecovered(artifact, model, { out: join(dir, "moved"), header: {} });
    const moved = await weightsOf(await openArtifact(join(dir, "moved"))), first = await weightsOf(artifact);
    const changed = [...first].filter(([name, bytes]) => !equal(bytes, moved.get(name)!)).map(([name]) =>
      name
    );
    assert.deepEqual(changed.sort(), ["block.0.attnNorm", "block.0.up.u", "block.1.q.s"]);
  }));

Deno.test("readTrainable() has of every layer what the artifact computes", () =>
  inFolder(async (dir) => {
    const checkpoint = randomCheckpoint(SPEC);
    await writeSmallArtifact(join(dir, "source"), checkpoint);
    const { spec, blocks, finalNorm, head } = await readTrainable(
      await openArtifact(join(dir, "source")),
      checkpoint,
    );
    assert.deepEqual([blocks.length, head.shape], [SPEC.blocks, [60, 40]]);
    assert.deepEqual([...finalNorm!.weight], [...(await checkpoint.read("finalNorm")).data]);
    for (const [i, { layers, norms, fixed }] of blocks.entries()) {
      assert.deepEqual(layers.map(({ name }) => name), ["q", "k", "v", "o", "up", "down"]);
      assert.deepEqual(Object.keys(norms), ["attnNorm", "mlpNorm"]);
      assert.deepEqual(Object.keys(fixed).sort(), ["gate", "k.bias", "q.bias", "v.bias"]);
      const { data } = await checkpoint.read(`block.${i}.gate`);
      assert.ok(fixed.gate.data.every((w, at) => Math.abs(w - data[at]) < 0.05));
      for (const { name, shape, kept, rank, U } of layers) {
        const W = (await checkpoint.read(`block.${i}.${name}`)).data;
        assert.deepEqual([rank, U.length, shape[1]], [3, 3 * shape[0], linearShapes(spec)[name]![1]]);
        assert.ok(kept.indices.every((place, at) => at === 0 || place > kept.indices[at - 1]), name);
        // The entries are the weights', to three bits.
        const off = Math.sqrt(
          kept.values.reduce((sum, w, at) => sum + (w - W[kept.indices[at]]) ** 2, 0) /
            kept.values.reduce((sum, w) => sum + w * w, 0),
        );
        assert.ok(off < 0.3, `${name}: ${off}`);
      }
    }
  }));

const equal = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((x, i) => x === b[i]);

async function weightsOf(
  artifact: Awaited<ReturnType<typeof openArtifact>>,
): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  await artifact.load(({ name, bytes }) => {
    found.set(name, new Uint8Array(bytes));
    return found.get(name)!;
  });
  return found;
}

Deno.test("readTrainable() refuses an artifact that is dense", () =>
  inFolder(async (dir) => {
    const folder = join(dir, "dense");
    await writeArtifact(folder);
    const checkpoint = await openCheckpoint(DEFAULT_MODEL);
    await assert.rejects(
      openArtifact(folder).then((artifact) => readTrainable(artifact, checkpoint)),
      (e) => e instanceof OatmillError && e.code === "invalid_request" && /layers are dense/.test(e.message),
    );
    checkpoint.close();
  }));
