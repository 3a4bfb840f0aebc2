/** /v1/loads: a bounded benchmark of this server under load (bench/load), started and watched by hand. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { LoadProgress } from "../../bench/load/load.ts";
import { OatmillError } from "../../errors.ts";
import { errorResponse } from "../errors.ts";
import { resource, type Services } from "../services.ts";
import type { LoadTask } from "./_load_worker.ts";
import type { LoadRun } from "./load_runner.ts";

/** Hard bounds: a load takes the server from those who use it. */
const MAX = {
  seconds: 300,
  requests: 10_000,
  concurrency: 64,
  rate: 100,
  inputTokens: 8192,
  outputTokens: 1024,
};
/** Before what is measured: the model's load and the first steps. */
const WARMUP = { requests: 2, seconds: 30 };
const TIMEOUT_MS = 120_000;
const SEED = 1;

const settingsSchema = z.object({
  model: z.string().min(1),
  kind: z.enum(["closed", "open"]).default("closed").openapi({
    description:
      "closed: `concurrency` users, each waiting for its answer; open: `rate` requests a second, whatever comes",
  }),
  concurrency: z.int().min(1).max(MAX.concurrency).default(4),
  rate: z.number().positive().max(MAX.rate).default(2).openapi({ description: "Poisson arrivals a second" }),
  seconds: z.number().min(1).max(MAX.seconds).default(20),
  requests: z.int().min(1).max(MAX.requests).default(MAX.requests).openapi({ description: "Most" }),
  input_tokens: z.int().min(1).max(MAX.inputTokens).default(64),
  output_tokens: z.int().min(1).max(MAX.outputTokens).default(32),
  ttft_ms: z.number().positive().nullish().openapi({
    description: "Goodput: the longest time to the first token",
  }),
  tpot_ms: z.number().positive().nullish().openapi({
    description: "Goodput: the longest time per output token",
  }),
}).openapi("LoadSettings");
export type LoadSettings = z.infer<typeof settingsSchema>;

const latency = z.number().nullable();
export const loadSchema = z.object({
  id: z.string(),
  object: z.literal("load"),
  status: z.enum(["running", "succeeded", "failed", "cancelled"]),
  created_at: z.int(),
  finished_at: z.int().nullable(),
  settings: settingsSchema,
  progress: z.array(z.object({
    warming_up: z.boolean(),
    seconds: z.number(),
    share: z.number(),
    requests: z.int(),
    errors: z.int(),
    in_flight: z.int(),
    output_tokens_per_second: z.number(),
    ttft_p50_ms: latency,
    ttft_p99_ms: latency,
  })).openapi({ description: "A few a second; empty in lists" }),
  result: z.unknown().openapi({ description: "What `bench load --json` has: latencies, rates, series" }),
  error: z.string().nullable(),
}).openapi("Load");
const listSchema = z.object({ object: z.literal("list"), data: z.array(loadSchema) });

const idParam = z.object({ id: z.string() });
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});
const listRoute = createRoute({
  method: "get",
  path: "/v1/loads",
  summary: "The last loads, newest first",
  responses: { 200: json("The loads", listSchema), default: errorResponse },
});
const startRoute = createRoute({
  method: "post",
  path: "/v1/loads",
  summary: "Put a load on this server and measure it",
  description: "One at a time. Its requests count as the caller's, and take the server from others.",
  request: { body: { required: true, content: { "application/json": { schema: settingsSchema } } } },
  responses: { 202: json("The load", loadSchema), default: errorResponse },
});
const getRoute = createRoute({
  method: "get",
  path: "/v1/loads/{id}",
  summary: "A load: how it goes, or what it found",
  request: { params: idParam },
  responses: { 200: json("The load", loadSchema), default: errorResponse },
});
const cancelRoute = createRoute({
  method: "post",
  path: "/v1/loads/{id}/cancel",
  summary: "End a load; what was measured is kept",
  request: { params: idParam },
  responses: { 200: json("The load", loadSchema), default: errorResponse },
});

export function loads(services: Services): OpenAPIHono {
  const { loads } = services;
  const app = resource();
  app.openapi(listRoute, (c) => {
    const data: z.infer<typeof loadSchema>[] = loads.list().map((run) => ({
      ...loadBody(run),
      progress: [],
    }));
    return c.json({ object: "list" as const, data }, 200);
  });
  app.openapi(startRoute, (c) => {
    const settings = c.req.valid("json");
    services.registry.get(settings.model);
    const apiKey = /^Bearer +(\S+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
    return c.json(loadBody(loads.start(settings, loadTask(settings, services, apiKey))), 202);
  });
  app.openapi(getRoute, (c) => c.json(loadBody(loads.get(c.req.valid("param").id)), 200));
  app.openapi(cancelRoute, (c) => c.json(loadBody(loads.cancel(c.req.valid("param").id)), 200));
  return app;
}

/** @throws {OatmillError} unavailable before the server listens */
function loadTask(settings: LoadSettings, services: Services, apiKey: string | undefined): LoadTask {
  const address = services.address();
  if (address === null) throw new OatmillError("unavailable", "The server does not listen yet");
  const { kind, concurrency, rate, seconds, requests, model } = settings;
  const arrivals = { kind: "poisson" as const, rate, burstiness: 1, ramp: { from: rate, seconds: 1 } };
  const load = kind === "closed" ? { kind, concurrency } : { kind, arrivals, maxInFlight: MAX.concurrency };
  return {
    target: {
      baseUrl: `${address}/v1`,
      model,
      endpoint: "completions",
      timeoutMs: TIMEOUT_MS,
      ...apiKey === undefined ? {} : { apiKey },
      body: { ignore_eos: true, temperature: 0 },
    },
    spec: {
      load,
      limit: { requests, seconds },
      warmup: WARMUP,
      slo: { ttft: settings.ttft_ms ?? undefined, tpot: settings.tpot_ms ?? undefined },
      seed: SEED,
      inputTokens: String(settings.input_tokens),
      outputTokens: String(settings.output_tokens),
      sharedPrefix: null,
    },
  };
}

function loadBody(run: LoadRun<LoadSettings>): z.infer<typeof loadSchema> {
  const seconds = (ms: number) => Math.floor(ms / 1000);
  return {
    id: run.id,
    object: "load",
    status: run.state,
    created_at: seconds(run.createdMs),
    finished_at: run.finishedMs === null ? null : seconds(run.finishedMs),
    settings: run.settings,
    progress: run.progress.map(progressBody),
    result: run.result,
    error: run.error,
  };
}

const progressBody = (p: LoadProgress) => ({
  warming_up: p.warmingUp,
  seconds: p.seconds,
  share: p.share,
  requests: p.requests,
  errors: p.errors,
  in_flight: p.inFlight,
  output_tokens_per_second: p.outputTokensPerSecond,
  ttft_p50_ms: p.ttftP50Ms,
  ttft_p99_ms: p.ttftP99Ms,
});
