/** A response as server-sent events, numbered, in the order of OpenAI's. Items are done when all is. */
import { toHttpError } from "../errors.ts";
import { eventStream, typedEvent } from "../event_stream.ts";
import type { Generation } from "../generation.ts";
import type { Delta, GrowingResponse, OutputItem } from "./response.ts";

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
  try {
    for await (const { event } of generation.events()) {
      if (event.type === "prompt") {
        yield { type: "response.created", response: response.inProgress() };
        yield { type: "response.in_progress", response: response.inProgress() };
      }
      const deltas = event.type === "prompt" ? response.open() : response.add(event);
      for (const delta of deltas) yield* eventsOf(delta, response);
    }
  } catch (error) {
    if (!generation.left) yield* failure(response, error);
    return;
  }
  for (const [index, item] of response.items().entries()) yield* itemDone(item, index);
  yield { type: `response.${response.endStatus}`, response: response.ended(generation.usage()) };
}

function* eventsOf(delta: Delta, response: GrowingResponse): Generator<ResponseEvent, void, void> {
  const item = response.item(delta.index, "in_progress"),
    place = { item_id: item.id, output_index: delta.index };
  if (delta.type === "opens") {
    yield { type: "response.output_item.added", output_index: delta.index, item };
    if (item.type !== "message") return;
    const part = { type: "output_text", text: "", annotations: [], logprobs: [] };
    yield { type: "response.content_part.added", ...place, content_index: 0, part };
  } else if (delta.type === "text") {
    const { text, logprobs } = delta;
    yield { type: "response.output_text.delta", ...place, content_index: 0, delta: text, logprobs };
  } else yield { type: "response.function_call_arguments.delta", ...place, delta: delta.text };
}

function* itemDone(item: OutputItem, index: number): Generator<ResponseEvent, void, void> {
  const place = { item_id: item.id, output_index: index };
  if (item.type === "message") {
    const [part] = item.content, { text, logprobs } = part, inPart = { ...place, content_index: 0 };
    yield { type: "response.output_text.done", ...inPart, text, logprobs };
    yield { type: "response.content_part.done", ...inPart, part };
  } else {
    const { name, arguments: text } = item;
    yield { type: "response.function_call_arguments.done", ...place, name, arguments: text };
  }
  yield { type: "response.output_item.done", output_index: index, item };
}

/** The state for who reads events, then the error, which OpenAI's clients throw. */
function* failure(response: GrowingResponse, error: unknown): Generator<ResponseEvent, void, void> {
  const { code, message, param } = toHttpError(error).body.error;
  yield { type: "response.failed", response: response.failed(error) };
  yield { type: "error", code, message, param };
}
