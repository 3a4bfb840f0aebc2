/** GET /v1/status: what the server is doing now, for people who look (the console); machines scrape /metrics. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { readTuned } from "../engine/tuning.ts";
import { errorResponse } from "./errors.ts";
import type { ModelRegistry } from "./registry.ts";
import { resource, type Services } from "./services.ts";

const count = z.int().min(0);
const loadedSchema = z.object({
  id: z.string(),
  threads: count,
  running: count.openapi({ description: "Generations that take part in steps" }),
  waiting: count.openapi({ description: "Generations that wait for a place" }),
  batch_tokens: count.openapi({ description: "Tokens in the last step" }),
  steps: count,
  kv_blocks: z.object({ used: count, cached: count, total: count }),
  prefix_cache: z.object({ queries: count, hits: count, tokens: count }),
  speculation: z.object({ drafted: count, accepted: count }),
  memory_bytes: count,
});
export const statusSchema = z.object({
  object: z.literal("status"),
  version: z.string(),
  not_ready: z.string().nullable().openapi({ description: "Why it takes no requests; null: it does" }),
  started_at: z.int(),
  cores: count,
  memory: z.object({ process_bytes: count, machine_bytes: count, available_bytes: count }),
  models: z.array(loadedSchema).openapi({ description: "Those in memory" }),
  speeds: z.array(z.object({
    model: z.string(),
    tokens_per_second: z.number().openapi({
      description: "Mean decode speed of its answers since the start",
    }),
    answers: count,
  })),
  kernels: z.array(z.object({
    weights: z.string(),
    format: z.string().openapi({ description: "What was measured" }),
    decode: z.string().openapi({ description: "The variant for one row" }),
    batched: z.string().openapi({ description: "The variant for several" }),
  })).openapi({ description: "The variants that were fastest on this machine" }),
}).openapi("Status");

const route = createRoute({
  method: "get",
  path: "/v1/status",
  summary: "Queue, KV blocks, memory, speeds and kernels now",
  responses: {
    200: { description: "Now", content: { "application/json": { schema: statusSchema } } },
    default: errorResponse,
  },
});

export function status(services: Services): OpenAPIHono {
  const { version, registry, data } = services;
  const app = resource();
  app.openapi(route, async (c) => {
    const tuned = await readTuned(data.tuning);
    return c.json({
      object: "status" as const,
      version,
      not_ready: services.notReady(),
      started_at: Math.floor(performance.timeOrigin / 1000),
      cores: navigator.hardwareConcurrency,
      memory: memory(),
      models: registry.stats().map(loadedBody),
      speeds: await speeds(services),
      kernels: Object.entries(tuned).map(([weights, { format, decode, batched }]) => ({
        weights,
        format,
        decode,
        batched,
      })),
    }, 200);
  });
  return app;
}

function memory() {
  const { total, available } = Deno.systemMemoryInfo();
  return { process_bytes: Deno.memoryUsage().rss, machine_bytes: total, available_bytes: available };
}

function loadedBody({ id, stats: s }: ReturnType<ModelRegistry["stats"]>[number]) {
  return {
    id,
    threads: s.threads,
    running: s.running,
    waiting: s.waiting,
    batch_tokens: s.batchTokens,
    steps: s.stepsTotal,
    kv_blocks: { used: s.kvBlocksUsed, cached: s.kvBlocksCached, total: s.kvBlocksTotal },
    prefix_cache: { queries: s.prefixQueries, hits: s.prefixHits, tokens: s.prefixTokens },
    speculation: { drafted: s.draftedTokens, accepted: s.acceptedTokens },
    memory_bytes: s.memoryBytes,
  };
}

/** Operations on one model (chat, completion) count together. */
async function speeds({ telemetry }: Services) {
  const byModel = new Map<string, { sum: number; count: number }>();
  for (const { attributes, sum, count } of await telemetry.totals("outputTokensPerSecond")) {
    const model = String(attributes["gen_ai.request.model"]), one = byModel.get(model);
    byModel.set(model, { sum: sum + (one?.sum ?? 0), count: count + (one?.count ?? 0) });
  }
  return [...byModel].map(([model, { sum, count }]) => ({
    model,
    tokens_per_second: sum / count,
    answers: count,
  }));
}
