/** POST /v1/embeddings: a vector for each text or image, in OpenAI's shape. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import type { EncoderOutput } from "../models/classifier.ts";
import { meanState, unitVector } from "../models/vectors.ts";
import { encodeAll, encodedAnswer, encodingUsage, type RawInput } from "./encoding.ts";
import { errorResponse } from "./errors.ts";
import { nonEmptyStrings, tokenIds, tokenLists } from "./lists.ts";
import { resource, type Services } from "./services.ts";

const text = z.string().min(1);
const requestSchema = z.object({
  model: z.string().min(1).openapi({ description: "An encoder's id (GET /v1/models)" }),
  input: z.union([
    text,
    nonEmptyStrings,
    tokenIds,
    tokenLists,
  ]).openapi({ description: "Texts, or token ids; images as data URLs" }),
  encoding_format: z.enum(["float", "base64"]).nullish().openapi({
    description: "base64: little-endian float32",
  }),
  dimensions: z.int().min(1).nullish().openapi({
    description: "The first so many, scaled to length 1: for models trained that way",
  }),
  pooling: z.enum(["mean", "cls"]).nullish().openapi({
    description: "Extension: of the last hidden states; default: what the model was trained for",
  }),
  user: z.string().nullish(),
}).openapi("EmbeddingRequest");
type Body = z.infer<typeof requestSchema>;

const responseSchema = z.object({
  object: z.literal("list"),
  model: z.string(),
  data: z.array(z.object({
    object: z.literal("embedding"),
    index: z.int(),
    embedding: z.union([z.array(z.number()), z.string()]),
  })),
  usage: encodingUsage,
}).openapi("Embeddings");

const route = createRoute({
  method: "post",
  path: "/v1/embeddings",
  summary: "Vectors of texts or images",
  request: { body: { required: true, content: { "application/json": { schema: requestSchema } } } },
  responses: {
    200: {
      description: "A vector for each input",
      content: { "application/json": { schema: responseSchema } },
    },
    default: errorResponse,
  },
});

export function embeddings(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const body = c.req.valid("json");
    const answer = await encodedAnswer(
      c,
      services,
      (signal) => answerOf(body, c.req.raw, { signal, services }),
    );
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    return answer as any;
  });
  return app;
}

async function answerOf(
  body: Body,
  request: Request,
  options: { readonly signal: AbortSignal; readonly services: Services },
): Promise<z.infer<typeof responseSchema>> {
  const { results, tokens } = await encodeAll(inputsOf(body), {
    read: (output) => shortened(pooled(output, body.pooling), body.dimensions),
  }, { operation: "embeddings", model: body.model, param: "input", request, ...options });
  const data = results.map((vector, index) => ({
    object: "embedding" as const,
    index,
    embedding: body.encoding_format === "base64" ? base64(vector) : [...vector],
  }));
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return { object: "list", model: body.model, data, usage };
}

const inputsOf = ({ input }: Body): readonly RawInput[] =>
  typeof input === "string" || typeof input[0] === "number"
    ? [input as string | number[]]
    : input as string[] | number[][];

function pooled({ states, width, pooled }: EncoderOutput, pooling: Body["pooling"]): Float32Array {
  // A graph may give a pooled vector and no states, or labels alone.
  if ((pooling ? states : pooled).length === 0) {
    throw new OatmillError(
      "invalid_request",
      `The model gives no ${pooling ? "hidden states" : "vectors"}: POST /v1/classify gives its labels`,
      pooling ? "pooling" : "model",
    );
  }
  if (!pooling) return pooled;
  return pooling === "cls" ? states.slice(0, width) : meanState(states, width);
}

function shortened(vector: Float32Array, dimensions: Body["dimensions"]): Float32Array {
  if (!dimensions) return vector;
  if (dimensions > vector.length) {
    throw new OatmillError(
      "invalid_request",
      `Invalid value of "dimensions": the model's vectors have ${vector.length}, fewer than ${dimensions}`,
      "dimensions",
    );
  }
  return unitVector(vector.subarray(0, dimensions));
}

/** Little-endian on every machine. */
function base64(vector: Float32Array): string {
  const view = new DataView(new ArrayBuffer(4 * vector.length));
  vector.forEach((v, i) => view.setFloat32(4 * i, v, true));
  return new Uint8Array(view.buffer).toBase64();
}
