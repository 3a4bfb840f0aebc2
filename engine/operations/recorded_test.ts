import assert from "node:assert/strict";
import type { Kernels } from "../../kernels/load.ts";
import { type Call, callsOfRow, recordingKernels } from "./recorded.ts";

/** Kernels that write down how they were called. */
function loggingKernels(log: string[]): Kernels {
  const kernel = (name: string) => (...args: number[]) => void log.push(`${name}(${args})`);
  // Cast: only what the test calls is there.
  return {
    base: { max: kernel("max"), quantize: { 1: kernel("quantize_b1") } },
    linear: (name: string, size: number) => kernel(`${name}_b${size}`),
    attention: (format: string) => ({ kv_write: kernel(`kv_write ${format}`) }),
  } as unknown as Kernels;
}

Deno.test("callsOfRow() notes the kernel calls of one row, which then run with the same arguments", () => {
  const log: string[] = [], calls: Call[] = [];
  const kernels = recordingKernels(loggingKernels(log), calls);
  const noted = callsOfRow(
    (rows, tiles, mine) => {
      for (const { row, size } of tiles) kernels.base.max(row, size + rows);
      for (const { size } of mine) (kernels.base.quantize[size] as (x: number) => void)(7);
      (kernels.linear("q8", 1) as (w: number) => void)(64);
      (kernels.attention("int8").kv_write as (k: number) => void)(5);
    },
    calls,
    true,
  );
  assert.deepEqual(log, []);
  for (const call of noted) call();
  for (const call of noted) call();
  const once = ["max(0,2)", "quantize_b1(7)", "q8_b1(64)", "kv_write int8(5)"];
  assert.deepEqual(log, [...once, ...once]);
});

Deno.test("callsOfRow() leaves out what another thread does", () => {
  const log: string[] = [], calls: Call[] = [];
  const kernels = recordingKernels(loggingKernels(log), calls);
  const noted = callsOfRow(
    (_rows, _tiles, mine) => mine.forEach(() => kernels.base.max(1, 2)),
    calls,
    false,
  );
  assert.deepEqual(noted, []);
});
