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
      multiples: [1],
    })
  );
  assert.deepEqual(await Promise.all(jobs), [1, 2, 3, 4, 5].map((big) => [big / 12]));
});

Deno.test("LinalgPool runs large jobs together only as far as its memory allows, with more threads each", async () => {
  const real = globalThis.Worker, running: { job: unknown; threads: number; end: () => void }[] = [];
  globalThis.Worker = class {
    onmessage?: (event: unknown) => void;
    postMessage({ job, threads }: { job: { multiples: number[] }; threads: number }) {
      const [number] = job.multiples;
      const end = () => {
        running.splice(running.findIndex((r) => r.job === number), 1);
        this.onmessage!({ data: { result: job.multiples } });
      };
      running.push({ job: number, threads, end });
    }
    terminate() {}
  } as unknown as typeof Worker;
  try {
    using pool = new LinalgPool(4, 100);
    assert.deepEqual([1, 20, 34, 60, 200].map((bytes) => pool.concurrent(bytes)), [4, 4, 2, 1, 1]);
    const sizes = [200, 60, 60, 40, 0];
    const answers = sizes.map((bytes, i) =>
      pool.run<"outliers">({ kind: "outliers", layers: [], multiples: [i] }, bytes)
    );
    const now = () => running.map(({ job, threads }) => [job, threads]);
    const end = async (job: number) => {
      running.find((r) => r.job === job)!.end();
      assert.deepEqual(await answers[job], [job]);
    };
    assert.deepEqual(now(), [[0, 4]]); // larger than all memory: alone, but it runs
    await end(0);
    assert.deepEqual(now(), [[1, 4], [3, 2], [4, 1]]); // 2 waits, what fits beside 1 does not
    await end(1);
    assert.deepEqual(now(), [[3, 2], [4, 1], [2, 4]]);
    for (const job of [2, 3, 4]) await end(job);
  } finally {
    globalThis.Worker = real;
  }
});

Deno.test("LinalgPool hands a job's error to its caller and goes on", async () => {
  using pool = new LinalgPool(1);
  const values = toShared(new Float32Array(3));
  await assert.rejects(pool.run<"table">({ kind: "table", values, shape: [2, 64], format: "q8" }), Error);
  assert.deepEqual(await pool.run<"outliers">({ kind: "outliers", layers: layers([1, 1]), multiples: [2] }), [
    0,
  ]);
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
      pool.run<"outliers">({ kind: "outliers", layers: layers([1, 1]), multiples: [2] }),
      /out of memory/,
    );
  } finally {
    globalThis.Worker = real;
  }
});

Deno.test("LinalgPool.close() rejects what is not done and what comes later", async () => {
  const pool = new LinalgPool(1);
  const job = () => pool.run<"outliers">({ kind: "outliers", layers: layers([1, 1]), multiples: [2] });
  const open = [job(), job()];
  pool.close();
  for (const promise of open) await assert.rejects(promise, /closed/);
  await assert.rejects(job(), /closed/);
  pool.close(); // harmless
});
