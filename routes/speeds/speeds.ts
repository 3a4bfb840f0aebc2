/** /v1/speeds: how fast models answer as they are stored and as dense ones, measured on request. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { errorResponse } from "../errors.ts";
import { resource, type Services } from "../services.ts";
import type { ModelSpeed } from "./speed_runner.ts";

const figures = z.object({ prefill: z.number(), decode: z.number(), streams: z.number() });
export const speedSchema = z.object({
  object: z.literal("speed"),
  model: z.string(),
  version: z.string(),
  status: z.enum(["running", "succeeded", "failed"]),
  created_at: z.int(),
  result: z.object({
    threads: z.int(),
    prompt_tokens: z.int(),
    decode_tokens: z.int(),
    streams: z.int(),
    stored: figures.openapi({ description: "Tokens per second as the model is stored" }),
    dense_int8: figures.openapi({
      description: "Of a dense int8 model of its shape, with random weights, in turn",
    }),
    ratio: figures.openapi({ description: "stored / dense_int8 within a round; the median" }),
  }).nullable(),
  error: z.string().nullable(),
}).openapi("Speed");
const listSchema = z.object({ object: z.literal("list"), data: z.array(speedSchema) });

const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});
const listRoute = createRoute({
  method: "get",
  path: "/v1/speeds",
  summary: "What was measured of models' versions, and what is being measured",
  responses: { 200: json("The speeds", listSchema), default: errorResponse },
});
const startRoute = createRoute({
  method: "post",
  path: "/v1/speeds",
  summary: "Measure a model beside a dense one of its shape",
  description:
    "One at a time, in some seconds for small models, on all threads: it takes the server from others.",
  request: {
    body: {
      required: true,
      content: { "application/json": { schema: z.object({ model: z.string().min(1) }) } },
    },
  },
  responses: { 202: json("What is being measured", speedSchema), default: errorResponse },
});

export function speeds({ speeds, registry, data }: Services): OpenAPIHono {
  const app = resource();
  app.openapi(listRoute, (c) => c.json({ object: "list" as const, data: speeds.list().map(speedBody) }, 200));
  app.openapi(startRoute, (c) => {
    const { id: model, version, folder } = registry.get(c.req.valid("json").model);
    return c.json(speedBody(speeds.start({ model, version }, data.modelPath(folder))), 202);
  });
  return app;
}

function speedBody(
  { model, version, state, madeMs, result, error }: ModelSpeed,
): z.infer<typeof speedSchema> {
  return {
    object: "speed",
    model,
    version,
    status: state,
    created_at: Math.floor(madeMs / 1000),
    result: result && {
      threads: result.threads,
      prompt_tokens: result.promptTokens,
      decode_tokens: result.decodeTokens,
      streams: result.streams,
      stored: result.stored,
      dense_int8: result.dense,
      ratio: result.ratio,
    },
    error,
  };
}
