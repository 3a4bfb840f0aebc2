import assert from "node:assert/strict";
import { ProgressReporter } from "./progress.ts";

const after = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
/** Timers may come late, not early (but for a rounded millisecond). */
const atLeast = (seconds: number | undefined, ms: number) =>
  assert.ok(seconds! * 1000 > ms - 2, `${seconds} s`);

Deno.test("time() gives what a step waits behind another phase to that phase", async () => {
  using progress = new ProgressReporter({});
  await progress.time("calibrate", () => after(60), { behind: { phase: "compress", work: after(30) } });
  atLeast(progress.phases.compress, 30);
  atLeast(progress.phases.calibrate, 20);
});

Deno.test("time() of a step that ends before the other phase is all that phase's; a failed one ends it too", async () => {
  using progress = new ProgressReporter({});
  const work = after(50);
  await progress.time("calibrate", () => after(10), { behind: { phase: "compress", work } });
  assert.equal(progress.phases.calibrate, 0);
  const failed = Promise.reject(new Error("no"));
  await progress.time("calibrate", () => after(20), { behind: { phase: "compress", work: failed } });
  atLeast(progress.phases.calibrate, 15);
  await work;
});
