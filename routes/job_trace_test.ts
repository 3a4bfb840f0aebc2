import assert from "node:assert/strict";
import type { CompressStep } from "../compress/types.ts";
import { Telemetry } from "../telemetry/telemetry.ts";
import { OtlpReceiver } from "../tests/otlp_receiver.ts";
import { JobTrace } from "./job_trace.ts";

/** Any moment of the present: OpenTelemetry takes small numbers for milliseconds since the process began. */
const START_MS = Date.UTC(2026, 0, 1);
const step = (
  phase: CompressStep["phase"],
  block: CompressStep["block"],
  [startMs, endMs]: readonly [number, number],
): CompressStep => ({ phase, block, startMs: START_MS + startMs, endMs: START_MS + endMs });
const measure = (index: number) => ({ pass: "measure", index }) as const;
const compress = (index: number) => ({ pass: "compress", index }) as const;

/** What a receiver gets of a job with these steps: each span as "parent > name", and the metrics. */
async function traced(steps: Iterable<CompressStep>) {
  await using receiver = new OtlpReceiver();
  const telemetry = await Telemetry.open({ version: "0", otlp: receiver.options });
  const trace = new JobTrace(telemetry, { "oatmill.job": "cmp-1" });
  for (const one of steps) trace.see(one);
  trace.end();
  await telemetry.close();
  const spans = receiver.spans(), job = spans.find((s) => s.name === "compression");
  assert.ok(spans.every((s) => s.traceId === job.traceId));
  const named = new Map<string, string>(spans.map((s) => [s.spanId, s.name]));
  const ms = (nano: string) => Number(BigInt(nano) / 1_000_000n) - START_MS;
  const shown = spans.filter((s) => s !== job).map((s) =>
    `${named.get(s.parentSpanId)} > ${s.name} ${ms(s.startTimeUnixNano)}-${ms(s.endTimeUnixNano)}`
  );
  return { job, shown: shown.sort(), metrics: receiver.metrics() };
}

Deno.test("a job's trace is job, block, phase; phases of no block stand under the job", async () => {
  const { shown, metrics } = await traced([
    step("sample", null, [0, 50]),
    step("calibrate", measure(0), [50, 80]),
    step("allocate", measure(0), [80, 90]),
    step("calibrate", measure(1), [90, 120]),
    // The next pass; its second block begins while workers end the first, one phase goes on.
    step("compress", compress(0), [120, 150]),
    step("read", compress(1), [150, 160]),
    step("compress", compress(0), [160, 180]),
    step("compress", compress(0), [181, 190]),
    step("write", compress(0), [190, 200]),
    step("evaluate", null, [200, 300]),
  ]);
  assert.deepEqual(shown, [
    "compress block 0 > compress 120-150",
    "compress block 0 > compress 160-190",
    "compress block 0 > write 190-200",
    "compress block 1 > read 150-160",
    "compression > compress block 0 120-200",
    "compression > compress block 1 150-160",
    "compression > evaluate 200-300",
    "compression > measure block 0 50-90",
    "compression > measure block 1 90-120",
    "compression > sample 0-50",
    "measure block 0 > allocate 80-90",
    "measure block 0 > calibrate 50-80",
    "measure block 1 > calibrate 90-120",
  ]);
  const durations = metrics.find((m) => m.name === "oatmill.compression.phase_duration").histogram.dataPoints;
  const sums = durations.map((p: { attributes: { value: { stringValue: string } }[]; sum: number }) =>
    `${p.attributes[0].value.stringValue} ${p.sum.toFixed(3)}`
  );
  assert.deepEqual(sums.sort(), [
    "allocate 0.010",
    "calibrate 0.060",
    "compress 0.059",
    "evaluate 0.100",
    "read 0.010",
    "sample 0.050",
    "write 0.010",
  ]);
});

Deno.test("a job's trace is bounded, and says what it left out", async () => {
  const endless = function* () {
    for (let i = 0; i < 5000; i++) yield step("compress", compress(i), [10 * i, 10 * i + 2]);
  };
  const telemetry = await Telemetry.open({ version: "0", otlp: null });
  const trace = new JobTrace(telemetry, {});
  let spans = 1;
  const { startSpan } = telemetry;
  telemetry.startSpan = (...args) => (spans++, startSpan.apply(telemetry, args));
  for (const one of endless()) trace.see(one);
  trace.end();
  await telemetry.close();
  assert.equal(spans, 4096);
  const { attributes } = trace.span as unknown as { attributes: Record<string, number> };
  assert.equal(attributes["oatmill.steps_dropped"], 5000 - (4096 - 1 - 1) / 2);
});
