import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../errors.ts";
import { INPUT_NAMES } from "./forward/block_graph.ts";
import { type BlockStatistics, shared } from "./statistics.ts";
import { StatisticsStore } from "./statistics_store.ts";
import { seededRandom } from "./random.ts";
import { WorkFolder } from "./work_folder.ts";

/** Random statistics whose H is symmetric, as sums of x'x are. */
function statistics(dIn: number, seed: number, moments: boolean): BlockStatistics {
  const random = seededRandom(seed);
  const one = () => {
    const d = shared(dIn), H = moments ? shared(dIn * dIn) : null;
    for (let i = 0; i < dIn; i++) {
      d[i] = random.normal();
      if (H) { for (let j = i; j < dIn; j++) H[i * dIn + j] = H[j * dIn + i] = random.normal(); }
    }
    return { d, H };
  };
  return Object.fromEntries(INPUT_NAMES.map((name) => [name, one()])) as unknown as BlockStatistics;
}

/** Runs with a folder that the compression of `out` would have; afterwards nothing may be left. */
async function inFolder(use: (folder: WorkFolder, dir: string) => void | Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    {
      using folder = WorkFolder.beside(`${dir}/out`);
      await use(folder, dir);
    }
    assert.deepEqual([...Deno.readDirSync(dir)], []);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("StatisticsStore.get() returns what was put, from memory and from disk", () =>
  inFolder((folder) => {
    let run = 0;
    const sizes = fc.array(fc.tuple(fc.integer({ min: 1, max: 70 }), fc.boolean()), { maxLength: 4 });
    fc.assert(
      fc.property(sizes, fc.nat(40_000), (blocks, memoryBytes) => {
        const store = new StatisticsStore({ folder, memoryBytes }), base = 10 * run++;
        const put = blocks.map(([dIn, moments], i) => statistics(dIn, i, moments));
        put.forEach((s, i) => store.put(base + i, s));
        assert.ok(store.memoryBytes <= memoryBytes);
        put.forEach((s, i) => assert.deepEqual(store.get(base + i), s));
      }),
      { numRuns: 40 },
    );
  }));

Deno.test("StatisticsStore keeps a triangle of several panels", () =>
  inFolder((folder) => {
    const one = statistics(1500, 1, true); // 1.1 M values a triangle
    for (const memoryBytes of [0, Infinity]) {
      const store = new StatisticsStore({ folder, memoryBytes });
      store.put(0, one);
      assert.deepEqual(store.getInput(0, "mlp"), one.mlp);
      const triangles = INPUT_NAMES.length * 4 * (1500 + 1500 * 1501 / 2);
      assert.equal(store.memoryBytes, memoryBytes === 0 ? 0 : triangles);
    }
  }));

Deno.test("StatisticsStore refuses a block twice, one that is not there, and a disk that fails", () =>
  inFolder((folder) => {
    const store = new StatisticsStore({ folder, memoryBytes: 0 });
    store.put(3, statistics(4, 1, true));
    assert.throws(() => store.put(3, statistics(4, 1, true)), RangeError);
    assert.throws(() => store.get(2), RangeError);
    Deno.truncateSync(folder.file("statistics.3.mlp"), 8);
    assert.throws(() => store.get(3), (e) => e instanceof OatmillError && e.code === "storage_failed");
    const nowhere = new StatisticsStore({ folder: WorkFolder.beside("/proc/none/out"), memoryBytes: 0 });
    const failed = (e: unknown) => e instanceof OatmillError && e.code === "storage_failed";
    assert.throws(() => nowhere.put(0, statistics(4, 1, true)), failed);
  }));

Deno.test("WorkFolder makes nothing that is not asked for", () =>
  inFolder((folder, dir) => {
    new StatisticsStore({ folder, memoryBytes: Infinity }).put(0, statistics(4, 1, true));
    assert.deepEqual([...Deno.readDirSync(dir)], []);
  }));
