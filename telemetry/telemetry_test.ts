import assert from "node:assert/strict";
import { OtlpReceiver } from "../tests/otlp_receiver.ts";
import { log, setLogSink } from "./log.ts";
import { failSpan, Telemetry } from "./telemetry.ts";

Deno.test("Telemetry writes Prometheus text with buckets, units and observed gauges", async () => {
  const telemetry = await Telemetry.open({ version: "0", otlp: null });
  telemetry.record("timeToFirstToken", 0.2, { "gen_ai.request.model": "m" });
  telemetry.add("outputTokens", 3);
  telemetry.set("jobProgress", 0.5);
  const stop = telemetry.observe((report) => report("kvBlocksUsed", 7, { "gen_ai.request.model": "m" }));
  const text = await telemetry.metricsText();
  assert.match(text, /^# TYPE gen_ai_server_time_to_first_token histogram$/m);
  assert.match(
    text,
    /^gen_ai_server_time_to_first_token_bucket\{.*gen_ai_request_model="m".*le="0.2"\} 1$/m,
  );
  assert.match(text, /^oatmill_output_tokens_total\{.*\} 3$/m);
  assert.match(text, /^oatmill_compression_progress\{.*\} 0.5$/m);
  assert.match(text, /^oatmill_engine_kv_blocks_used\{.*\} 7$/m);
  stop();
  await telemetry.close();
});

Deno.test("Telemetry sends metrics and the caller's trace to an OTLP receiver", async () => {
  await using receiver = new OtlpReceiver();
  const telemetry = await Telemetry.open({ version: "0", otlp: receiver.options });
  const headers = new Headers({ traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` });
  const request = telemetry.startSpan("text_completion m", { parent: telemetry.contextOf(headers) });
  telemetry.spanOf("prefill", request, { startMs: 1000, endMs: 1500 }, { tokens: 4 });
  failSpan(request, "rate_limit_exceeded");
  request.end();
  telemetry.record("requestDuration", 1.5, { "gen_ai.operation.name": "chat" });
  await telemetry.close();

  const [prefill, parent] = ["prefill", "text_completion m"].map((n) =>
    receiver.spans().find((s) => s.name === n)
  );
  assert.equal(parent.traceId, "a".repeat(32));
  assert.equal(parent.parentSpanId, "b".repeat(16));
  assert.equal(prefill.parentSpanId, parent.spanId);
  assert.equal(BigInt(prefill.endTimeUnixNano) - BigInt(prefill.startTimeUnixNano), 500_000_000n);
  const duration = receiver.metrics().find((m) => m.name === "gen_ai.server.request.duration");
  assert.equal(duration.unit, "s");
  assert.equal(duration.histogram.dataPoints[0].sum, 1.5);
});

Deno.test("log() writes one JSON line with the trace's id", async () => {
  const lines: string[] = [];
  const former = setLogSink((line) => lines.push(line));
  const telemetry = await Telemetry.open({ version: "0", otlp: null });
  try {
    const span = telemetry.startSpan("x");
    log("info", "request", { status: 200 }, span);
    const line = JSON.parse(lines[0]);
    assert.equal(line.status, 200);
    assert.equal(line.trace_id, span.spanContext().traceId);
  } finally {
    setLogSink(former);
    await telemetry.close();
  }
});

Deno.test("Telemetry names its service, unless the standard variable does", async () => {
  const named = async () => {
    const telemetry = await Telemetry.open({ version: "1.2.3", otlp: null });
    const text = await telemetry.metricsText();
    await telemetry.close();
    return /^target_info\{.*service_name="([^"]*)".*\}/m.exec(text)?.[1];
  };
  const former = Deno.env.get("OTEL_SERVICE_NAME");
  try {
    Deno.env.delete("OTEL_SERVICE_NAME");
    assert.equal(await named(), "oatmill");
    Deno.env.set("OTEL_SERVICE_NAME", "mill-1");
    assert.equal(await named(), "mill-1");
  } finally {
    if (former === undefined) Deno.env.delete("OTEL_SERVICE_NAME");
    else Deno.env.set("OTEL_SERVICE_NAME", former);
  }
});
