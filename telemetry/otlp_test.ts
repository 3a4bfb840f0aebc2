import assert from "node:assert/strict";
import { otlpFromEnv } from "./otlp.ts";

Deno.test("otlpFromEnv() follows OpenTelemetry's variables", () => {
  const read = (env: Record<string, string>) => otlpFromEnv((name) => env[name]);
  const base = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318/" };
  const both = {
    metricsUrl: "http://collector:4318/v1/metrics",
    tracesUrl: "http://collector:4318/v1/traces",
  };
  const rows: [Record<string, string>, ReturnType<typeof otlpFromEnv>][] = [
    [{}, null],
    [base, { ...both, intervalMs: undefined }],
    [{ ...base, OTEL_METRIC_EXPORT_INTERVAL: "500" }, { ...both, intervalMs: 500 }],
    [{ ...base, OTEL_METRICS_EXPORTER: "none" }, { ...both, metricsUrl: null, intervalMs: undefined }],
    [{ ...base, OTEL_METRICS_EXPORTER: "none", OTEL_TRACES_EXPORTER: "none" }, null],
    [{ ...base, OTEL_SDK_DISABLED: "true" }, null],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://jaeger/in" }, {
      metricsUrl: null,
      tracesUrl: "http://jaeger/in",
      intervalMs: undefined,
    }],
  ];
  for (const [env, expected] of rows) assert.deepEqual(read(env), expected, JSON.stringify(env));
});
