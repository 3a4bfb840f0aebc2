/**
 * Every instrument there is: kind, name, unit, description, buckets. Adding a metric is one entry here; code that
 * measures gets it by its key from `Telemetry.metrics`. Names of `gen_ai.*` are those of the OpenTelemetry GenAI conventions.
 */
export interface InstrumentInfo {
  /** Observed ones are read at collection, the others where something happens. */
  readonly kind: "histogram" | "counter" | "gauge" | "observable_counter" | "observable_gauge";
  readonly name: string;
  /** UCUM. */
  readonly unit: string;
  readonly description: string;
  /** Upper bounds, histograms only. */
  readonly buckets?: readonly number[];
}

/** 1 ms to 2.5 s, about evenly on a logarithmic scale. */
const MS_TO_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5] as const;
/** 1 ms to 5 min: a 5 M model answers in milliseconds, a long prompt on one slow core takes minutes. */
const REQUEST_SECONDS = [...MS_TO_SECONDS, 5, 10, 30, 60, 120, 300] as const;
/** The same, so fine that a quantile is right to 5 ms where answers feel immediate. */
const FIRST_TOKEN_SECONDS = [
  ...[1, 2.5, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750].map((ms) =>
    ms / 1000
  ),
  ...[1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300],
] as const;
/** 0.25 ms to 2.5 s: 4000 to 0.4 tokens/s. */
const TOKEN_SECONDS = [0.00025, 0.0005, ...MS_TO_SECONDS] as const;
/** The conventions' advice for token counts. */
const TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576] as const;
const TOKENS_PER_SECOND = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] as const;
/** 10 ms to a day: a phase of the bundled model takes a second, of a large one hours. */
const JOB_SECONDS = [0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400] as const;

export const INSTRUMENTS = {
  requestDuration: {
    kind: "histogram",
    name: "gen_ai.server.request.duration",
    unit: "s",
    description: "From the request's arrival to its last byte",
    buckets: REQUEST_SECONDS,
  },
  timeToFirstToken: {
    kind: "histogram",
    name: "gen_ai.server.time_to_first_token",
    unit: "s",
    description: "From the request's arrival to its first token",
    buckets: FIRST_TOKEN_SECONDS,
  },
  timePerOutputToken: {
    kind: "histogram",
    name: "gen_ai.server.time_per_output_token",
    unit: "s",
    description: "Time per output token after the first",
    buckets: TOKEN_SECONDS,
  },
  tokenUsage: {
    kind: "histogram",
    name: "gen_ai.client.token.usage",
    unit: "{token}",
    description: "Input and output tokens of a request",
    buckets: TOKENS,
  },
  outputTokensPerSecond: {
    kind: "histogram",
    name: "oatmill.output_tokens_per_second",
    unit: "{token}/s",
    description: "Decode speed of one generation: output tokens after the first, by the time they took",
    buckets: TOKENS_PER_SECOND,
  },
  queueTime: {
    kind: "histogram",
    name: "oatmill.queue_time",
    unit: "s",
    description: "Time a generation waited for its first step",
    buckets: REQUEST_SECONDS,
  },
  ready: {
    kind: "observable_gauge",
    name: "oatmill.ready",
    unit: "1",
    description: "Whether the server takes requests, as /readyz says: 1 or 0",
  },
  httpRequests: {
    kind: "counter",
    name: "oatmill.http.requests",
    unit: "{request}",
    description: "HTTP requests by route and status; streams count when they begin",
  },
  outputTokens: {
    kind: "counter",
    name: "oatmill.output_tokens",
    unit: "{token}",
    description: "Tokens generated since the start",
  },
  promptTokens: {
    kind: "counter",
    name: "oatmill.prompt_tokens",
    unit: "{token}",
    description: "Prompt tokens read since the start",
  },
  cachedTokens: {
    kind: "counter",
    name: "oatmill.cached_tokens",
    unit: "{token}",
    description: "Prompt tokens found in the prefix cache since the start",
  },
  jobs: {
    kind: "counter",
    name: "oatmill.compressions",
    unit: "{job}",
    description: "Compression jobs by final state",
  },
  jobProgress: {
    kind: "gauge",
    name: "oatmill.compression.progress",
    unit: "1",
    description: "Share of the running compression's present phase that is done",
  },
  phaseDuration: {
    kind: "histogram",
    name: "oatmill.compression.phase_duration",
    unit: "s",
    description: "Seconds a compression spent in each phase",
    buckets: JOB_SECONDS,
  },
  batchTokens: {
    kind: "observable_gauge",
    name: "oatmill.engine.batch_tokens",
    unit: "{token}",
    description: "Tokens in the last step",
  },
  steps: {
    kind: "observable_counter",
    name: "oatmill.engine.steps",
    unit: "{step}",
    description: "Steps run since the model was loaded",
  },
  requestsRunning: {
    kind: "observable_gauge",
    name: "oatmill.engine.requests_running",
    unit: "{request}",
    description: "Generations that take part in steps",
  },
  requestsWaiting: {
    kind: "observable_gauge",
    name: "oatmill.engine.requests_waiting",
    unit: "{request}",
    description: "Generations that wait for a place",
  },
  kvBlocksUsed: {
    kind: "observable_gauge",
    name: "oatmill.engine.kv_blocks_used",
    unit: "{block}",
    description: "KV blocks in use",
  },
  kvBlocksTotal: {
    kind: "observable_gauge",
    name: "oatmill.engine.kv_blocks_total",
    unit: "{block}",
    description: "KV blocks there are",
  },
  kvBlocksCached: {
    kind: "observable_gauge",
    name: "oatmill.engine.kv_blocks_cached",
    unit: "{block}",
    description: "KV blocks kept for prompts that begin alike, not in use now",
  },
  prefixQueries: {
    kind: "observable_counter",
    name: "oatmill.engine.prefix_cache_queries",
    unit: "{request}",
    description: "Prompts looked for in the prefix cache since the model was loaded",
  },
  prefixHits: {
    kind: "observable_counter",
    name: "oatmill.engine.prefix_cache_hits",
    unit: "{request}",
    description: "Prompts whose beginning the prefix cache knew, since the model was loaded",
  },
  prefixTokens: {
    kind: "observable_counter",
    name: "oatmill.engine.prefix_cache_tokens",
    unit: "{token}",
    description: "Tokens the prefix cache saved computing since the model was loaded",
  },
  draftedTokens: {
    kind: "observable_counter",
    name: "oatmill.engine.drafted_tokens",
    unit: "{token}",
    description: "Tokens that speculation computed on trial since the model was loaded",
  },
  acceptedTokens: {
    kind: "observable_counter",
    name: "oatmill.engine.accepted_tokens",
    unit: "{token}",
    description: "Drafted tokens that were right since the model was loaded",
  },
  modelLoadDuration: {
    kind: "histogram",
    name: "oatmill.model.load_duration",
    unit: "s",
    description: "From the first request of a model that is not loaded until it generates",
    buckets: REQUEST_SECONDS,
  },
  modelUnloads: {
    kind: "counter",
    name: "oatmill.model.unloads",
    unit: "{model}",
    description: "Engines closed, by reason",
  },
  modelSwitches: {
    kind: "counter",
    name: "oatmill.model.switches",
    unit: "{switch}",
    description: "How often a model's name came to point at another version",
  },
  modelsLoaded: {
    kind: "observable_gauge",
    name: "oatmill.model.loaded",
    unit: "{model}",
    description: "Models that stand in memory",
  },
  modelMemory: {
    kind: "observable_gauge",
    name: "oatmill.engine.memory",
    unit: "By",
    description: "WebAssembly memory of a loaded model: weights, KV blocks and scratch",
  },
  artifactBytes: {
    kind: "observable_gauge",
    name: "oatmill.model.artifact_size",
    unit: "By",
    description: "Bytes of a model's packed tensors",
  },
  denseBytes: {
    kind: "observable_gauge",
    name: "oatmill.model.dense_size",
    unit: "By",
    description: "Bytes the same model takes with dense float16 weights",
  },
  sparsity: {
    kind: "observable_gauge",
    name: "oatmill.model.sparsity",
    unit: "1",
    description: "Share of zeros in the sparse parts of a model",
  },
  storageBytes: {
    kind: "observable_gauge",
    name: "oatmill.storage.usage",
    unit: "By",
    description: "What files, each content once, and uploads under way take of the storage quota",
  },
  processMemory: {
    kind: "observable_gauge",
    name: "process.memory.usage",
    unit: "By",
    description: "Resident memory of the process",
  },
} as const satisfies Record<string, InstrumentInfo>;

export type InstrumentKey = keyof typeof INSTRUMENTS;
type KeysOf<K extends InstrumentInfo["kind"]> = {
  [P in InstrumentKey]: (typeof INSTRUMENTS)[P]["kind"] extends K ? P : never;
}[InstrumentKey];
export type HistogramKey = KeysOf<"histogram">;
export type CounterKey = KeysOf<"counter">;
export type GaugeKey = KeysOf<"gauge">;
export type ObservableKey = KeysOf<"observable_counter" | "observable_gauge">;
