/** How completions and chat completions answer: whole, or as a stream of chunks; they differ in what a choice holds. */
import { createRoute, type z } from "@hono/zod-openapi";
import { errorResponse, toHttpError } from "./errors.ts";
import { dataEvent, EVENT_STREAM, eventStream } from "./event_stream.ts";
import type { ChoiceEvent, Generation } from "./generation.ts";
import type { SamplingFields } from "./sampling.ts";

export function answerRoute<P extends string, B extends z.ZodType, A extends z.ZodType>(
  o: { path: P; summary: string; body: B; answer: A; description: string },
) {
  return createRoute({
    method: "post",
    path: o.path,
    summary: o.summary,
    request: { body: { required: true, content: { "application/json": { schema: o.body } } } },
    responses: {
      200: {
        description: o.description,
        content: {
          "application/json": { schema: o.answer },
          ...EVENT_STREAM,
        },
      },
      default: errorResponse,
    },
  });
}

/** What all chunks of one answer begin with. */
export const answerHead = (
  prefix: string,
  model: string,
): { id: string; created: number; model: string } => ({
  id: `${prefix}-${crypto.randomUUID()}`,
  created: Math.floor(Date.now() / 1000),
  model,
});
/** The same, with what OpenAI calls the fingerprint: the version that answers, which `model` may not say. */
export const generationHead = (
  prefix: string,
  model: string,
  generation: Generation,
): ReturnType<typeof answerHead> & { system_fingerprint: string } => ({
  ...answerHead(prefix, model),
  system_fingerprint: generation.fingerprint,
});

export interface StreamOptions {
  /** Stands in every chunk. */
  readonly head: object;
  readonly body: SamplingFields;
  /** What an event adds to its choice, a chunk each. */
  readonly parts: (event: ChoiceEvent) => readonly { readonly finish_reason: string | null }[];
}

/** Chunks as choices move on, timings with the last of them, usage if asked for, [DONE]. */
export function streamAnswer(generation: Generation, options: StreamOptions): Response {
  return eventStream(chunks(generation, options), () => generation.leave());
}
async function* chunks(
  generation: Generation,
  { head, body, parts }: StreamOptions,
): AsyncGenerator<string, void, void> {
  const withUsage = body.stream_options?.include_usage === true;
  const chunk = (choices: readonly object[], more: object = {}) =>
    dataEvent({ ...head, choices, ...withUsage ? { usage: null } : {}, ...more });
  let open = generation.choices.length;
  try {
    for await (const event of generation.events()) {
      for (const part of parts(event)) {
        const last = part.finish_reason !== null && --open === 0;
        yield chunk([part], last ? { timings: generation.timings() } : {});
      }
    }
    if (withUsage) yield chunk([], { usage: generation.usage() });
    yield dataEvent("[DONE]");
  } catch (error) {
    if (!generation.left) yield dataEvent(toHttpError(error).body);
  }
}
