/**
 * The only file that touches the OpenTelemetry SDK. One {@linkcode Telemetry} per process, made by the server on the main
 * thread: metrics (Prometheus text always, OTLP where it is to be pushed) and spans (OTLP only).
 */
import {
  type Attributes,
  type Context,
  type Counter,
  type Gauge,
  type Histogram,
  type Observable,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  trace,
  type Tracer,
  ValueType,
} from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import { DataPointType, MeterProvider } from "@opentelemetry/sdk-metrics";
import { TracerProvider } from "@opentelemetry/sdk-trace";
import {
  type CounterKey,
  type GaugeKey,
  type HistogramKey,
  type InstrumentInfo,
  type InstrumentKey,
  INSTRUMENTS,
  type ObservableKey,
} from "./instruments.ts";
import { openOtlp, type Otlp, type OtlpOptions } from "./otlp.ts";

export type { Attributes, Context, Span };
export { ROOT_CONTEXT, SpanKind };

export interface TelemetryOptions {
  readonly version: string;
  /** Null: Prometheus text only. */
  readonly otlp: OtlpOptions | null;
}

/** Values of the observable gauges and counters, by key; asked for at every collection. */
export type Observation = (
  report: (key: ObservableKey, value: number, attributes?: Attributes) => void,
) => void;

const HEADERS: TextMapGetter<Headers> = {
  get: (headers, key) => headers.get(key) ?? undefined,
  keys: (headers) => [...headers.keys()],
};

export class Telemetry {
  readonly #prometheus = new PrometheusExporter({ preventServerStart: true });
  readonly #serializer = new PrometheusSerializer();
  readonly #meters: MeterProvider;
  readonly #spans: TracerProvider;
  readonly #tracer: Tracer;
  readonly #histograms = new Map<InstrumentKey, Histogram>();
  readonly #counters = new Map<InstrumentKey, Counter>();
  readonly #gauges = new Map<InstrumentKey, Gauge>();
  readonly #observations = new Set<Observation>();
  readonly #propagator = new W3CTraceContextPropagator();

  static async open(options: TelemetryOptions): Promise<Telemetry> {
    return new Telemetry(options.version, options.otlp && await openOtlp(options.otlp));
  }

  private constructor(version: string, otlp: Otlp | null) {
    // In merge() the argument wins: the SDK's defaults, then ours, then OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    const resource = defaultResource()
      .merge(resourceFromAttributes({ "service.name": "oatmill", "service.version": version }))
      .merge(detectResources({ detectors: [envDetector] }));
    const readers = [this.#prometheus, ...otlp?.readers ?? []];
    this.#meters = new MeterProvider({ resource, readers });
    this.#spans = new TracerProvider({ resource, spanProcessors: [...otlp?.processors ?? []] });
    this.#tracer = this.#spans.getTracer("oatmill", version);
    this.#createInstruments();
  }

  /** ValueType.DOUBLE throughout: counters of INT throw under Deno's own provider. */
  #createInstruments(): void {
    const meter = this.#meters.getMeter("oatmill");
    const observables = new Map<ObservableKey, Observable>();
    for (const [k, info] of Object.entries(INSTRUMENTS) as [InstrumentKey, InstrumentInfo][]) {
      const options = { unit: info.unit, description: info.description, valueType: ValueType.DOUBLE };
      if (info.kind === "histogram") {
        const advice = { explicitBucketBoundaries: [...info.buckets ?? []] };
        this.#histograms.set(k, meter.createHistogram(info.name, { ...options, advice }));
      } else if (info.kind === "counter") this.#counters.set(k, meter.createCounter(info.name, options));
      else if (info.kind === "gauge") this.#gauges.set(k, meter.createGauge(info.name, options));
      else if (info.kind === "observable_counter") {
        observables.set(k as ObservableKey, meter.createObservableCounter(info.name, options));
      } else observables.set(k as ObservableKey, meter.createObservableGauge(info.name, options));
    }
    meter.addBatchObservableCallback((result) => {
      for (const observe of this.#observations) {
        observe((key, value, attributes) => result.observe(observables.get(key)!, value, attributes));
      }
    }, [...observables.values()]);
  }

  record(key: HistogramKey, value: number, attributes?: Attributes): void {
    this.#histograms.get(key)!.record(value, attributes);
  }
  add(key: CounterKey, value: number, attributes?: Attributes): void {
    this.#counters.get(key)!.add(value, attributes);
  }
  set(key: GaugeKey, value: number, attributes?: Attributes): void {
    this.#gauges.get(key)!.record(value, attributes);
  }
  /** Adds a source of observed values; returns how to remove it. The SDK repeats the last value of what is reported no more: report 0 for what is gone. */
  observe(observation: Observation): () => void {
    this.#observations.add(observation);
    return () => this.#observations.delete(observation);
  }

  /** The caller's trace, from its `traceparent` header. */
  contextOf(headers: Headers): Context {
    return this.#propagator.extract(ROOT_CONTEXT, headers, HEADERS);
  }
  startSpan(
    name: string,
    options: { parent?: Span | Context; kind?: SpanKind; attributes?: Attributes; startTimeMs?: number } = {},
  ): Span {
    const { parent, kind, attributes, startTimeMs } = options;
    const context = parent === undefined
      ? ROOT_CONTEXT
      : "spanContext" in parent
      ? trace.setSpan(ROOT_CONTEXT, parent)
      : parent;
    return this.#tracer.startSpan(name, { kind, attributes, startTime: startTimeMs }, context);
  }
  /** A span that is already over. */
  spanOf(
    name: string,
    parent: Span,
    times: { startMs: number; endMs: number },
    attributes?: Attributes,
  ): void {
    this.startSpan(name, { parent, attributes, startTimeMs: times.startMs }).end(times.endMs);
  }

  /** Prometheus text. */
  async metricsText(): Promise<string> {
    const { resourceMetrics } = await this.#prometheus.collect();
    return this.#serializer.serialize(resourceMetrics);
  }

  /** What a histogram has counted since the start, for each set of attributes. */
  async totals(key: HistogramKey): Promise<{ attributes: Attributes; sum: number; count: number }[]> {
    const { resourceMetrics } = await this.#prometheus.collect();
    const all = resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
    const found = all.find(({ descriptor }) => descriptor.name === INSTRUMENTS[key].name);
    if (found?.dataPointType !== DataPointType.HISTOGRAM) return [];
    return found.dataPoints.map(({ attributes, value }) => ({
      attributes,
      sum: value.sum ?? 0,
      count: value.count,
    }));
  }

  /** Sends what is waiting, then stops. */
  async close(): Promise<void> {
    await Promise.allSettled([this.#spans.shutdown(), this.#meters.shutdown()]);
  }
}

export function failSpan(span: Span, errorType: string): void {
  span.setAttribute("error.type", errorType);
  span.setStatus({ code: SpanStatusCode.ERROR, message: errorType });
}
