import assert from "node:assert/strict";
import { TILE_SIZES } from "./abi.ts";
import { issueBound, kernelOperations, unitTimes } from "./issue_bound.ts";
import { packedBytes, type Shape2 } from "./layout.ts";
import { readModule } from "./load.ts";
import { countLoops, type Loop, NO_OPERATIONS, type Operations } from "./loop_counts.ts";
import { LINEAR_MODULES, weightFormat } from "./manifest.ts";
import { PEAK_LOOPS, type PeakLoop, READ_STREAMS } from "./peak.ts";

const loop = (operations: Partial<Operations>, loops: Loop[] = []): Loop => ({
  operations: { ...NO_OPERATIONS, ...operations },
  loops,
});
/** Peak loops of one operation a nanosecond, dot products to 32 bits `slow` times slower. */
const peaks = (slow: number) => {
  const kinds = {
    vector: "vector",
    shuffle: "shuffle",
    dot16: "dot16",
    wide: "wide",
    i16_q8: "vector",
    i16_q4: "vector",
    i32: "dot32",
    f32: "madd",
    load: "load",
    mixed: "vector",
  } as const satisfies Record<PeakLoop, keyof Operations>;
  return Object.fromEntries(
    PEAK_LOOPS.map((name) => [name, {
      ns: name === "i32" ? slow : 1,
      operations: { ...NO_OPERATIONS, [kinds[name]]: 1 },
    }]),
  ) as unknown as Parameters<typeof unitTimes>[0];
};

Deno.test("every kernel of the manifest can be counted, and loads at least the bytes of its weights", async () => {
  const shape: Shape2 = [64, 512];
  for (const module of LINEAR_MODULES) {
    const loops = countLoops(await readModule(module.file));
    const format = weightFormat(module, 2);
    let before = 0;
    for (const batch of [...TILE_SIZES].reverse()) {
      const o = kernelOperations(loops.get(`mv_b${batch}`)!, { format, shape, batch });
      const products = o.dot16 + o.dot32 + o.madd;
      // A vector holds 16 bytes; larger tiles take the weights in several passes, never in less than one.
      assert.ok(
        o.load >= packedBytes(format, shape) / 16 * 0.9,
        `${module.file} batch ${batch}: ${o.load} loads`,
      );
      assert.ok(products > before, `${module.file} batch ${batch}: ${products} products`);
      before = products;
    }
  }
});

Deno.test("the peak module's loops hold what their names say", async () => {
  const loops = countLoops(await readModule("peak"));
  const inner = (name: string) => loops.get(name)!.loops[0].operations;
  for (const name of PEAK_LOOPS) assert.equal(loops.get(`peak_${name}`)!.loops.length, 1);
  assert.equal(inner("peak_i16_q8").dot16, inner("peak_i16_q8").wide);
  assert.equal(inner("peak_i16_q4").wide, 0);
  assert.ok(inner("peak_i32").dot32 > 0 && inner("peak_f32").madd > 0 && inner("peak_load").load > 0);
  for (const [streams, loads] of READ_STREAMS) {
    assert.equal(inner(`read_${streams}_${loads}`).load % (streams * loads), 0);
  }
});

Deno.test("kernelOperations() takes chunks, blocks and rows as often as they run", () => {
  // 8 rows at once, one token, 4 slots a chunk: the loop over rows holds one over blocks, which holds one over chunks.
  const pairs = loop({ store: 2 }, [loop({ wide: 2 }, [loop({ dot16: 8, load: 12 })])]);
  const singles = loop({ store: 1 }, [loop({ wide: 1 }, [loop({ dot16: 4, load: 8 })])]);
  const o = kernelOperations(loop({ load: 5 }, [pairs, singles]), {
    format: { kind: "windows", windows: 4, bits: 8, blockChunks: 2 },
    shape: [16, 256],
    batch: 1,
  });
  // 2 pairs of groups x 4 chunks, 2 blocks.
  assert.deepEqual(o, {
    ...NO_OPERATIONS,
    dot16: 2 * 4 * 8,
    load: 2 * 4 * 12,
    wide: 2 * 2 * 2,
    store: 2 * 2,
  });
});

Deno.test("kernelOperations() refuses a function that multiplies nothing", () => {
  assert.throws(
    () => kernelOperations(loop({ load: 1 }), { format: { kind: "q8" }, shape: [4, 64], batch: 1 }),
    RangeError,
  );
});

Deno.test("issueBound() names the busiest unit; a slow dot32 is five instructions", () => {
  const fast = unitTimes(peaks(1)), slow = unitTimes(peaks(4));
  assert.deepEqual([fast.dot32Slots, slow.dot32Slots], [1, 5]);
  assert.deepEqual(
    issueBound({ ...NO_OPERATIONS, shuffle: 8, vector: 2 }, { ...fast, issue: 0.1, vector: 0.1 }),
    {
      ns: 8,
      unit: "shuffle",
    },
  );
  assert.deepEqual(issueBound({ ...NO_OPERATIONS, dot32: 2 }, { ...slow, issue: 0.1, vector: 0.1 }), {
    ns: 8,
    unit: "multiply",
  });
  // Loads take two slots: bounds check and load.
  assert.deepEqual(issueBound({ ...NO_OPERATIONS, load: 4 }, { ...fast, issue: 1, load: 0.5 }), {
    ns: 8,
    unit: "issue",
  });
});
