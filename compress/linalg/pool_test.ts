import assert from "node:assert/strict";
import { toShared } from "../statistics.ts";
import { LinalgPool } from "./pool.ts";

const layers = (
  W: readonly number[],
) => [{ W: toShared(Float32Array.from(W)), d: toShared(Float32Array.of(1, 1)) }];

Deno.test("LinalgPool runs more jobs than it has workers, each answered with its own result", async () => {
  using pool = new LinalgPool(2);
  const jobs = [1, 2, 3, 4, 5].map((big) =>
    pool.run<"outliers">({
      kind: "outliers",
      layers: layers([0, 0, 0, ...Array(big).fill(1), ...Array(9 - big).fill(0)]),
      m: 1,
    })
  );
  assert.deepEqual(await Promise.all(jobs), [1, 2, 3, 4, 5].map((big) => big / 12));
});

Deno.test("LinalgPool hands a job's error to its caller and goes on", async () => {
  using pool = new LinalgPool(1);
  const values = toShared(new Float32Array(3));
  await assert.rejects(pool.run<"table">({ kind: "table", values, shape: [2, 64], format: "q8" }), Error);
  assert.equal(await pool.run<"outliers">({ kind: "outliers", layers: layers([1, 1]), m: 2 }), 0);
});

Deno.test("LinalgPool refuses jobs once a worker has died, also one that died idle", async () => {
  const started: Worker[] = [], real = globalThis.Worker;
  globalThis.Worker = class extends real {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      started.push(this);
    }
  };
  try {
    using pool = new LinalgPool(1);
    started[0].onerror!(new ErrorEvent("error", { message: "out of memory" }));
    await assert.rejects(
      pool.run<"outliers">({ kind: "outliers", layers: layers([1, 1]), m: 2 }),
      /out of memory/,
    );
  } finally {
    globalThis.Worker = real;
  }
});

Deno.test("LinalgPool.close() rejects what is not done and what comes later", async () => {
  const pool = new LinalgPool(1);
  const job = () => pool.run<"outliers">({ kind: "outliers", layers: layers([1, 1]), m: 2 });
  const open = [job(), job()];
  pool.close();
  for (const promise of open) await assert.rejects(promise, /closed/);
  await assert.rejects(job(), /closed/);
  pool.close(); // harmless
});
