import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../errors.ts";
import { LINEAR_INPUT } from "../models/spec.ts";
import { type BlockStatistics, shared, toShared } from "./statistics.ts";
import { StatisticsStore } from "./statistics_store.ts";
import { seededRandom } from "./random.ts";
import { openValues, WorkSpace } from "./work_space.ts";

/** Random statistics whose H is symmetric, as sums of x'x are. */
function statistics(dIn: number, seed: number, moments: boolean): BlockStatistics {
  const random = seededRandom(seed);
  const one = () => {
    const d = shared(dIn), H = moments ? shared(dIn * dIn) : null;
    for (let i = 0; i < dIn; i++) {
      d[i] = random.normal();
      if (H) { for (let j = i; j < dIn; j++) H[i * dIn + j] = H[j * dIn + i] = random.normal(); }
    }
    return { d, ...moments && { rms: toShared(d.map((x) => x / 2)) }, H };
  };
  return Object.fromEntries(
    [...new Set(Object.values(LINEAR_INPUT))].map((name) => [name, one()]),
  ) as unknown as BlockStatistics;
}

/** Runs with a space of its own; afterwards nothing may be left. */
async function withSpace(
  memoryBytes: number,
  use: (space: WorkSpace, dir: string) => void | Promise<void>,
): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    {
      using space = WorkSpace.open(`${dir}/work`, memoryBytes);
      await use(space, dir);
    }
    assert.deepEqual([...Deno.readDirSync(dir)], []);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

for (
  const [where, memoryBytes] of [["memory", Infinity], ["memory and disk", 200_000], ["disk", 0]] as const
) {
  Deno.test(`StatisticsStore.get() returns what was put, from ${where}`, () =>
    withSpace(memoryBytes, (space) => {
      let run = 0;
      const sizes = fc.array(fc.tuple(fc.integer({ min: 1, max: 70 }), fc.boolean()), { maxLength: 4 });
      fc.assert(
        fc.property(sizes, (blocks) => {
          const store = new StatisticsStore(space), base = 10 * run++;
          const put = blocks.map(([dIn, moments], i) => statistics(dIn, i, moments));
          put.forEach((s, i) => store.put(base + i, s));
          assert.ok(space.usedBytes <= memoryBytes);
          put.forEach((s, i) => assert.deepEqual(store.get(base + i), s));
        }),
        { numRuns: 20 },
      );
    }));
}

Deno.test("StatisticsStore keeps a triangle of several panels", async () => {
  const one = statistics(1500, 1, true); // 1.1 M values a triangle
  for (const memoryBytes of [0, Infinity]) {
    await withSpace(memoryBytes, (space) => {
      const store = new StatisticsStore(space);
      store.put(0, one);
      assert.deepEqual(store.getInput(0, "mlp"), one.mlp);
      const triangles = new Set(Object.values(LINEAR_INPUT)).size * 4 * (1500 + 1500 * 1501 / 2);
      assert.equal(space.usedBytes, memoryBytes === 0 ? 0 : triangles);
    });
  }
});

Deno.test("StatisticsStore refuses a block twice, one that is not there, and a disk that fails", () =>
  withSpace(0, (space) => {
    const store = new StatisticsStore(space);
    store.put(3, statistics(4, 1, true));
    assert.throws(() => store.put(3, statistics(4, 1, true)), RangeError);
    assert.throws(() => store.get(2), RangeError);
    Deno.truncateSync(space.file("statistics.3.mlp"), 8);
    const failed = (e: unknown) => e instanceof OatmillError && e.code === "storage_failed";
    assert.throws(() => store.get(3), failed);
    const nowhere = new StatisticsStore(WorkSpace.open("/proc/none/work", 0));
    assert.throws(() => nowhere.put(0, statistics(4, 1, true)), failed);
  }));

Deno.test("WorkSpace makes no folder for what fits in memory", () =>
  withSpace(100, (space, dir) => {
    assert.equal(typeof space.place("a", 20), "object");
    assert.deepEqual([...Deno.readDirSync(dir)], []);
    assert.equal(typeof space.place("b", 6), "string");
    assert.equal(typeof space.place("c", 5), "object");
    assert.equal([...Deno.readDirSync(dir)].length, 1);
  }));

Deno.test("openValues() reads back what any of its users wrote, in memory and on disk", () =>
  withSpace(4 * 3_000_000, (space) => {
    for (const name of ["in memory", "on disk"]) {
      const place = space.place(name, 3_000_000);
      assert.equal(typeof place, name === "in memory" ? "object" : "string");
      using a = openValues(place);
      using b = openValues(place);
      const values = shared(2_500_000).map((_, i) => i); // more than one piece
      a.write(100_000, values);
      b.write(2_600_000, shared(400_000).fill(3));
      const out = shared(2_900_000);
      b.read(100_000, out);
      assert.ok(out.every((x, i) => x === (i < 2_500_000 ? i : 3)));
    }
  }));
