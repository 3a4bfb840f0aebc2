/** A response as server-sent events, numbered, in the order of OpenAI's: one message of one text part. */
import { toHttpError } from "../errors.ts";
import { eventStream, typedEvent } from "../event_stream.ts";
import type { Generation } from "../generation.ts";
import type { GrowingResponse } from "./response.ts";

interface ResponseEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export function streamResponse(response: GrowingResponse, generation: Generation): Response {
  return eventStream(numbered(events(response, generation)), () => generation.leave());
}

async function* numbered(
  events: AsyncGenerator<ResponseEvent, void, void>,
): AsyncGenerator<string, void, void> {
  let sequence_number = 0;
  for await (const event of events) {
    const next: ResponseEvent = { ...event, sequence_number: sequence_number++ };
    yield typedEvent(next);
  }
}

/** Reads from the generation before it yields anything: who leaves at the first event ends the generation. */
async function* events(
  response: GrowingResponse,
  generation: Generation,
): AsyncGenerator<ResponseEvent, void, void> {
  const inPart = { item_id: response.itemId, output_index: 0, content_index: 0 };
  try {
    for await (const { event } of generation.events()) {
      if (event.type === "prompt") {
        yield* opening(response, inPart);
        continue;
      }
      const { text, logprobs } = response.add(event);
      if (text === "" && logprobs.length === 0) continue;
      yield { type: "response.output_text.delta", ...inPart, delta: text, logprobs };
    }
  } catch (error) {
    if (!generation.left) yield* failure(response, error);
    return;
  }
  const part = response.part(), { text, logprobs } = part, status = response.endStatus;
  yield { type: "response.output_text.done", ...inPart, text, logprobs };
  yield { type: "response.content_part.done", ...inPart, part };
  yield { type: "response.output_item.done", output_index: 0, item: response.item(status) };
  yield { type: `response.${status}`, response: response.ended(generation.usage()) };
}

function* opening(response: GrowingResponse, inPart: object): Generator<ResponseEvent, void, void> {
  yield { type: "response.created", response: response.inProgress() };
  yield { type: "response.in_progress", response: response.inProgress() };
  yield { type: "response.output_item.added", output_index: 0, item: response.item("in_progress") };
  yield { type: "response.content_part.added", ...inPart, part: response.part() };
}

/** The state for who reads events, then the error, which OpenAI's clients throw. */
function* failure(response: GrowingResponse, error: unknown): Generator<ResponseEvent, void, void> {
  const { code, message, param } = toHttpError(error).body.error;
  yield { type: "response.failed", response: response.failed(error) };
  yield { type: "error", code, message, param };
}
