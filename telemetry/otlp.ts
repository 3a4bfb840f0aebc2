/** Where metrics and spans are pushed, by the standard variables of OpenTelemetry, and what pushes them. */
import { type MetricReader, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BatchSpanProcessor, type SpanProcessor } from "@opentelemetry/sdk-trace";

export interface OtlpOptions {
  /** Whole addresses of OTLP/HTTP receivers; null: none. */
  readonly metricsUrl: string | null;
  readonly tracesUrl: string | null;
  /** How often metrics are pushed. */
  readonly intervalMs?: number;
}

/**
 * Reads `OTEL_EXPORTER_OTLP_ENDPOINT` (to which the signal's path is added), `OTEL_EXPORTER_OTLP_{METRICS,TRACES}_ENDPOINT`
 * (taken as they are), `OTEL_{METRICS,TRACES}_EXPORTER=none`, `OTEL_SDK_DISABLED` and `OTEL_METRIC_EXPORT_INTERVAL` (ms).
 * Source: OpenTelemetry specification, "Environment variables" and "OTLP exporter".
 * @returns null: nothing is pushed
 */
export function otlpFromEnv(get: (name: string) => string | undefined): OtlpOptions | null {
  if (get("OTEL_SDK_DISABLED")?.toLowerCase() === "true") return null;
  const base = get("OTEL_EXPORTER_OTLP_ENDPOINT")?.replace(/\/+$/, "");
  const url = (signal: "METRICS" | "TRACES"): string | null => {
    if (get(`OTEL_${signal}_EXPORTER`) === "none") return null;
    return get(`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`) ||
      (base ? `${base}/v1/${signal.toLowerCase()}` : null);
  };
  const metricsUrl = url("METRICS"), tracesUrl = url("TRACES");
  if (metricsUrl === null && tracesUrl === null) return null;
  return { metricsUrl, tracesUrl, intervalMs: Number(get("OTEL_METRIC_EXPORT_INTERVAL")) || undefined };
}

export interface Otlp {
  readonly readers: readonly MetricReader[];
  readonly processors: readonly SpanProcessor[];
}

/** The exporters are loaded when something is to be sent: they cost a start 15 to 20 ms. */
export async function openOtlp({ metricsUrl, tracesUrl, intervalMs = 10_000 }: OtlpOptions): Promise<Otlp> {
  const [metrics, traces] = await Promise.all([
    metricsUrl === null ? null : import("@opentelemetry/exporter-metrics-otlp-http"),
    tracesUrl === null ? null : import("@opentelemetry/exporter-trace-otlp-http"),
  ]);
  const reader = metrics && new PeriodicExportingMetricReader({
    exporter: new metrics.OTLPMetricExporter({ url: metricsUrl! }),
    exportIntervalMillis: intervalMs,
    exportTimeoutMillis: Math.min(5_000, intervalMs),
  });
  const processor = traces &&
    new BatchSpanProcessor({ exporter: new traces.OTLPTraceExporter({ url: tracesUrl! }) });
  return { readers: reader ? [reader] : [], processors: processor ? [processor] : [] };
}
