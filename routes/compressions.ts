/** /v1/compressions: the jobs that POST /v1/models makes, in the style of OpenAI's fine-tuning jobs. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { recipeSchema } from "../models/recipe.ts";
import { FINAL_STATES, type Job, type JobEvent } from "../store/job_store.ts";
import { errorResponse, toHttpError } from "./errors.ts";
import { dataEvent, EVENT_STREAM, eventStream } from "./event_stream.ts";
import { type JobRunner, progressBody } from "./jobs.ts";
import { compressionBodySchema, submitFiles } from "./file_source.ts";
import { readJson } from "./json_body.ts";
import { resource, type Services } from "./services.ts";
import { leavingError } from "./traffic.ts";

const time = z.int().nullable();
export const jobSchema = z.object({
  id: z.string(),
  object: z.literal("compression"),
  model: z.string().openapi({ description: "The id that the compressed model gets" }),
  status: z.enum(["queued", "running", "succeeded", "failed", "cancelled"]),
  created_at: z.int(),
  started_at: time,
  finished_at: time,
  recipe: recipeSchema.openapi("Recipe"),
  files: z.array(
    z.object({
      name: z.string(),
      bytes: z.int(),
      sha256: z.string(),
      id: z.string().optional().openapi({ description: "Of /v1/files" }),
    }),
  ),
  progress: z.object({
    phase: z.string(),
    done: z.number(),
    total: z.number(),
    error: z.number().optional().openapi({ description: "The same as loss" }),
    block: z.int().nullable().openapi({ description: "Blocks done in this phase; of a graph layers" }),
    blocks: z.int().nullable(),
    loss: z.number().nullable().openapi({
      description: "Mean relative error of the layers so far; while it recovers, of the last step",
    }),
    tokens_per_second: z.number().nullable().openapi({ description: "While it recovers" }),
    dense_perplexity: z.number().nullable().openapi({ description: "Of the dense model, once measured" }),
    eta_seconds: z.int().nullable().openapi({ description: "At the speed so far; null until it is known" }),
  }).nullable(),
  error: z.object({ code: z.string(), message: z.string(), param: z.string().nullable() }).nullable(),
  result: z.unknown().openapi({ description: "Sizes, perplexities, seconds and layers, once succeeded" }),
}).openapi("Compression");

export const eventSchema = z.object({
  id: z.string(),
  object: z.literal("compression.event"),
  created_at: z.int(),
  level: z.enum(["info", "error"]),
  message: z.string(),
  data: z.unknown(),
}).openapi("CompressionEvent");

const list = <T extends z.ZodType>(item: T) =>
  z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean() });
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});
const idParam = z.object({ id: z.string() });
const limit = z.coerce.number().int().min(1).max(1000);

const listRoute = createRoute({
  method: "get",
  path: "/v1/compressions",
  summary: "Compression jobs, newest first",
  request: { query: z.object({ limit: limit.default(20), after: z.string().optional() }) },
  responses: { 200: json("A page of jobs", list(jobSchema)), default: errorResponse },
});
const getRoute = createRoute({
  method: "get",
  path: "/v1/compressions/{id}",
  summary: "One job",
  request: { params: idParam },
  responses: { 200: json("The job", jobSchema), default: errorResponse },
});
const eventsRoute = createRoute({
  method: "get",
  path: "/v1/compressions/{id}/events",
  summary: "A job's events: a list, or server-sent events until its end with `accept: text/event-stream`",
  request: {
    params: idParam,
    query: z.object({
      stream: z.enum(["true", "false"]).optional(),
      after: z.coerce.number().int().min(0).optional(),
      limit: limit.default(1000),
    }),
  },
  responses: {
    200: {
      description: "The events, oldest first",
      content: {
        "application/json": { schema: list(eventSchema) },
        ...EVENT_STREAM,
      },
    },
    default: errorResponse,
  },
});
const cancelRoute = createRoute({
  method: "post",
  path: "/v1/compressions/{id}/cancel",
  summary: "Cancel a job",
  description:
    "A job that recovers succeeds with the best so far (`recovery.stopped` is `cancelled`): it is still " +
    "running in the answer, and a second call cancels it.",
  request: { params: idParam },
  responses: { 200: json("The cancelled job", jobSchema), default: errorResponse },
});

const retryRoute = createRoute({
  method: "post",
  path: "/v1/compressions/{id}/retry",
  summary: "Try a failed or cancelled job again",
  description:
    "It goes on behind the last block that it had finished, at the end of the queue. 409 when its files are " +
    "no longer kept: those of the three jobs that ended last are.",
  request: { params: idParam },
  responses: { 200: json("The job, queued", jobSchema), default: errorResponse },
});
const deletedSchema = z.object({
  id: z.string(),
  object: z.literal("compression"),
  deleted: z.literal(true),
});
const deleteRoute = createRoute({
  method: "delete",
  path: "/v1/compressions/{id}",
  summary: "Forget a job that is over, with its files and events; its model stays",
  request: { params: idParam },
  responses: { 200: json("It is gone", deletedSchema), default: errorResponse },
});

const submitRoute = createRoute({
  method: "post",
  path: "/v1/compressions",
  summary: "Compress a model whose files were uploaded before",
  description: "The files are those that POST /v1/models takes, by their ids of /v1/files. " +
    "`calibration.text`, `evaluate.text` and `recover.text` of the recipe may be ids too, of texts that are no part of the model.",
  request: {
    body: {
      required: true,
      content: { "application/json": { schema: compressionBodySchema } },
    },
  },
  responses: { 202: json("The compression job", jobSchema), default: errorResponse },
});

export function compressions(services: Services): OpenAPIHono {
  const { jobs, traffic } = services;
  const app = resource();
  // Not app.openapi(): the recipe's mistakes have a code of their own.
  app.openAPIRegistry.registerPath(submitRoute);
  app.post(
    "/v1/compressions",
    async (c) =>
      c.json(jobBody(await submitFiles(await readJson(c.req.raw, services.limits.jsonBytes), services)), 202),
  );
  app.openapi(listRoute, (c) => {
    const { limit, after } = c.req.valid("query");
    const found = jobs.list({ limit: limit + 1, after });
    const data = found.slice(0, limit).map(jobBody);
    return c.json({ object: "list" as const, data, has_more: found.length > limit }, 200);
  });
  app.openapi(getRoute, (c) => c.json(jobBody(jobs.get(c.req.valid("param").id)), 200));
  app.openapi(eventsRoute, (c) => {
    const { id } = c.req.valid("param");
    const { stream, after, limit } = c.req.valid("query");
    const afterSeq = after ?? (Number(c.req.header("last-event-id")) || 0);
    const wantsStream = stream ? stream === "true" : c.req.header("accept")?.includes("text/event-stream");
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    if (wantsStream) return streamEvents(jobs, id, { afterSeq, leaving: traffic.leaving }) as any;
    const found = jobs.events(id, { afterSeq, limit: limit + 1 });
    return c.json({
      object: "list" as const,
      data: found.slice(0, limit).map(eventBody),
      has_more: found.length > limit,
    }, 200);
  });
  app.openapi(retryRoute, (c) => c.json(jobBody(jobs.retry(c.req.valid("param").id)), 200));
  app.openapi(deleteRoute, async (c) => {
    const { id } = c.req.valid("param");
    await jobs.remove(id);
    return c.json({ id, object: "compression" as const, deleted: true as const }, 200);
  });
  app.openapi(cancelRoute, async (c) => c.json(jobBody(await jobs.cancel(c.req.valid("param").id)), 200));
  return app;
}

export function jobBody(job: Job): z.infer<typeof jobSchema> {
  const seconds = (ms: number | null) => ms === null ? null : Math.floor(ms / 1000);
  return {
    id: job.id,
    object: "compression",
    model: job.model,
    status: job.state,
    created_at: Math.floor(job.createdMs / 1000),
    started_at: seconds(job.startedMs),
    finished_at: seconds(job.finishedMs),
    recipe: job.recipe as z.infer<typeof recipeSchema>,
    files: [...job.files],
    progress: job.progress && progressBody(job.progress),
    error: job.error,
    result: job.result,
  };
}

const eventBody = (event: JobEvent): z.infer<typeof eventSchema> => ({
  id: String(event.seq),
  object: "compression.event",
  created_at: Math.floor(event.atMs / 1000),
  level: event.level,
  message: event.message,
  data: event.data,
});

/** Past events, then new ones, until the job is over or the server leaves: a client comes again with the last event's id. */
function streamEvents(
  jobs: JobRunner,
  id: string,
  { afterSeq, leaving }: { readonly afterSeq: number; readonly leaving: AbortSignal },
): Response {
  const waiting = jobs.events(id, { afterSeq });
  let over = FINAL_STATES.includes(jobs.get(id).state);
  let wake = () => {};
  const unsubscribe = jobs.subscribe(id, (event, job) => {
    waiting.push(event);
    over = FINAL_STATES.includes(job.state);
    wake();
  });
  let left = false;
  const leave = () => wake();
  leaving.addEventListener("abort", leave, { once: true });
  async function* source(): AsyncGenerator<string, void, void> {
    try {
      while (!left) {
        for (const event of waiting.splice(0)) yield `id: ${event.seq}\n${dataEvent(eventBody(event))}`;
        if (over && waiting.length === 0) return yield dataEvent("[DONE]");
        if (leaving.aborted) return yield dataEvent(toHttpError(leavingError()).body);
        if (waiting.length === 0) await new Promise<void>((done) => wake = done);
      }
    } finally {
      leaving.removeEventListener("abort", leave);
      unsubscribe();
    }
  }
  return eventStream(source(), () => {
    left = true;
    wake();
  });
}
