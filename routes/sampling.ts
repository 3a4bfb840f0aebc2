/** Request fields that completions and chat completions share, and what the engine makes of them. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import type { SamplingOptions } from "../engine/types.ts";

/** Most choices of one request, and most prompts. */
export const MAX_CHOICES = 128;

export const samplingFields = {
  model: z.string().min(1).openapi({ description: "A model's id (GET /v1/models)" }),
  temperature: z.number().min(0).max(2).nullish().openapi({ description: "0 is greedy; default 1" }),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(0).nullish().openapi({ description: "Extension: 0 or null = all" }),
  min_p: z.number().min(0).max(1).nullish().openapi({ description: "Extension" }),
  repeat_penalty: z.number().gt(0).max(10).nullish().openapi({ description: "Extension: 1 = none" }),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: z.record(z.string().regex(/^\d+$/, "keys must be token ids"), z.number().min(-100).max(100))
    .nullish(),
  seed: z.int().nullish(),
  n: z.int().min(1).max(MAX_CHOICES).nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(4)]).nullish().openapi({
    description: "Up to 4 strings that end the answer; never emitted",
  }),
  max_tokens: z.int().min(0).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  ignore_eos: z.boolean().nullish().openapi({
    description: "Extension: do not end at the end-of-text token",
  }),
  return_token_ids: z.boolean().nullish().openapi({ description: "Extension: `token_ids` in every choice" }),
};
const fieldsSchema = z.object(samplingFields);
export type SamplingFields = z.infer<typeof fieldsSchema>;

/** @throws {OatmillError} invalid_request when fields contradict each other */
export function checkFields(body: SamplingFields): void {
  if (body.stream_options && !body.stream) {
    throw new OatmillError(
      "invalid_request",
      'Cannot use "stream_options" without "stream": true',
      "stream_options",
    );
  }
  if (stopStrings(body).includes("")) {
    throw new OatmillError(
      "invalid_request",
      'Invalid value of "stop": a stop string must not be empty',
      "stop",
    );
  }
}

export const stopStrings = (body: SamplingFields): string[] =>
  body.stop === null || body.stop === undefined ? [] : Array.isArray(body.stop) ? body.stop : [body.stop];

/** Options of choice `index`: its own seed, the same again for the same request seed. */
export function samplingOptions(
  body: SamplingFields,
  options: { vocabSize: number; seed: number },
): SamplingOptions {
  const logitBias = Object.entries(body.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias] as const);
  const outside = logitBias.find(([id]) => id >= options.vocabSize);
  if (outside) {
    const message = `Invalid value of "logit_bias": token ${outside[0]} is not below ${options.vocabSize}`;
    throw new OatmillError("invalid_request", message, "logit_bias");
  }
  return {
    temperature: body.temperature ?? 1,
    topP: body.top_p ?? 1,
    topK: body.top_k ?? 0,
    minP: body.min_p ?? 0,
    repeatPenalty: body.repeat_penalty ?? 1,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    logitBias,
    seed: options.seed,
  };
}

export const requestSeed = (body: SamplingFields): number =>
  body.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];

/**
 * Most tokens to generate after a prompt: what was asked for, or what is left.
 * @throws {OatmillError} context_length_exceeded
 */
export function fitContext(
  promptTokens: number,
  asked: number | null,
  options: { contextLength: number; param: string },
): number {
  const { contextLength, param } = options;
  const left = contextLength - promptTokens;
  if (left >= Math.max(asked ?? 1, 0)) return asked ?? left;
  const wanted = asked === null ? "" : ` and ${asked} to generate`;
  throw new OatmillError(
    "context_length_exceeded",
    `This model's context holds ${contextLength} tokens, but the request has ${promptTokens} in the prompt${wanted}: shorten it or ask for fewer tokens`,
    param,
  );
}

export const timingsSchema = z.object({
  prompt_n: z.int(),
  prompt_ms: z.number(),
  prompt_per_second: z.number().nullable(),
  predicted_n: z.int(),
  predicted_ms: z.number(),
  predicted_per_second: z.number().nullable(),
  queue_ms: z.number(),
}).openapi("Timings");

export const usageSchema = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }),
}).openapi("Usage");
