/** POST /v1/classify: labels of images or texts, as JSON or, for a file, as a form. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { EncoderOutput } from "../models/classifier.ts";
import { OatmillError } from "../errors.ts";
import { answerHead } from "./answer.ts";
import { encodeAll, encodedAnswer, encodingUsage, type OpenedEncoder, type RawInput } from "./encoding.ts";
import { errorResponse } from "./errors.ts";
import { imageBytes } from "./image_input.ts";
import { nonEmptyStrings } from "./lists.ts";
import { resource, type Services } from "./services.ts";

const DEFAULT_TOP = 5;
const MAX_TOP = 1000;

const oneOrMore = z.union([z.string().min(1), nonEmptyStrings]);
const modelField = z.string().min(1).openapi({ description: "A classifier's id (GET /v1/models)" });
const jsonSchema = z.object({
  model: modelField,
  input: oneOrMore.nullish().openapi({ description: "Texts; or images as data URLs" }),
  image: oneOrMore.nullish().openapi({
    description: "JPEG, PNG or WebP files as base64 or data URLs",
  }),
  top_k: z.int().min(1).max(MAX_TOP).nullish().openapi({ description: `Default ${DEFAULT_TOP}` }),
}).openapi("ClassifyRequest");
const formSchema = z.object({
  model: modelField,
  image: z.instanceof(File, { error: "expected a file" }).openapi({
    type: "string",
    format: "binary",
    description: "A JPEG, PNG or WebP file",
  }),
  top_k: z.coerce.number().int().min(1).max(MAX_TOP).optional(),
}).openapi("ClassifyForm");

const scoreSchema = z.object({
  label: z.string(),
  index: z.int().openapi({ description: "Of the model's classes" }),
  score: z.number().openapi({
    description: "Probability: softmax over all classes; of a single one its sigmoid",
  }),
});
const responseSchema = z.object({
  id: z.string(),
  object: z.literal("list"),
  created: z.int(),
  model: z.string(),
  data: z.array(z.object({
    object: z.literal("classification"),
    index: z.int(),
    label: z.string(),
    score: z.number(),
    labels: z.array(scoreSchema).openapi({ description: "The likeliest `top_k`, in order" }),
  })),
  usage: encodingUsage,
}).openapi("Classification");

const route = createRoute({
  method: "post",
  path: "/v1/classify",
  summary: "Labels of images or texts",
  request: {
    body: {
      content: {
        "application/json": { schema: jsonSchema },
        "multipart/form-data": { schema: formSchema },
      },
    },
  },
  responses: {
    200: {
      description: "For each input its likeliest labels",
      content: { "application/json": { schema: responseSchema } },
    },
    default: errorResponse,
  },
});

interface Classify {
  readonly model: string;
  readonly inputs: readonly RawInput[];
  readonly param: "input" | "image";
  readonly top: number;
}

export function classify(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const type = c.req.header("content-type") ?? "";
    // The library types what it checked by either type of body as one of both.
    const asked = /^multipart\/form-data\b/i.test(type)
      ? await readForm(c.req.valid("form") as z.infer<typeof formSchema>)
      : readJson(type, c.req.valid("json") as z.infer<typeof jsonSchema>);
    const answer = await encodedAnswer(
      c,
      services,
      (signal) => answerOf(asked, c.req.raw, { signal, services }),
    );
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    return answer as any;
  });
  return app;
}

async function answerOf(
  { model, inputs, param, top }: Classify,
  request: Request,
  options: { readonly signal: AbortSignal; readonly services: Services },
): Promise<z.infer<typeof responseSchema>> {
  const { results, tokens } = await encodeAll(inputs, {
    check: (opened) => checkClassifier(opened, model),
    read: (output, { encoder }) => likeliest(output, encoder.labels!, top),
  }, { operation: "classify", model, param, request, ...options });
  const data = results.map((labels, index) => ({
    object: "classification" as const,
    index,
    label: labels[0].label,
    score: labels[0].score,
    labels,
  }));
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return { ...answerHead("classify", model), object: "list", data, usage };
}

async function readForm({ model, image, top_k }: z.infer<typeof formSchema>): Promise<Classify> {
  const bytes = new Uint8Array(await image.arrayBuffer());
  return { model, inputs: [bytes], param: "image", top: top_k ?? DEFAULT_TOP };
}

function readJson(type: string, body: z.infer<typeof jsonSchema>): Classify {
  if (!/^application\/([a-z.-]+\+)?json\b/i.test(type)) {
    throw new OatmillError(
      "unsupported_media_type",
      "Send the body as application/json, or a file as multipart/form-data",
    );
  }
  const { model, input, image } = body;
  if ((input ?? null) === null === ((image ?? null) === null)) {
    throw new OatmillError("invalid_request", 'Give either "input" or "image"', "input");
  }
  const list = [input ?? image!].flat();
  const top = body.top_k ?? DEFAULT_TOP;
  if (input) return { model, inputs: list, param: "input", top };
  return { model, inputs: list.map((text) => imageBytes(text, "image")), param: "image", top };
}

function checkClassifier({ encoder }: OpenedEncoder, id: string): void {
  if (encoder.labels) return;
  throw new OatmillError(
    "invalid_request",
    `The model "${id}" has no classifier: POST /v1/embeddings gives the vectors it makes`,
    "model",
  );
}

/** The largest first; of equal ones the first. */
function likeliest({ logits }: EncoderOutput, labels: readonly string[], top: number) {
  const scores = probabilities(logits!);
  return [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, top)
    .map((index) => ({ label: labels[index], index, score: scores[index] }));
}

/** Softmax in f64. A single logit (rerankers have one) would always be 1: it goes through a sigmoid, as in transformers. */
function probabilities(logits: Float32Array): Float64Array {
  if (logits.length === 1) return Float64Array.from(logits, (v) => 1 / (1 + Math.exp(-v)));
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(logits, (v) => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
