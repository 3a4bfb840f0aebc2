/** Server-sent events by fetch: EventSource can send neither a key nor a body. */
import { errorOf } from "./api.ts";

/** Data of each event up to `[DONE]`. @throws {ApiError} for an error that comes as an event */
export async function* eventData<T>(response: Response): AsyncGenerator<T, void, void> {
  for await (const event of blocks(response)) {
    const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((l) =>
      l.slice(5).trimStart()
    )
      .join("\n");
    if (data === "[DONE]") return;
    if (data === "") continue;
    const value = JSON.parse(data);
    if (value?.error?.message && !value.object) throw errorOf(data, response.status);
    yield value;
  }
}

/** What stands between empty lines. */
async function* blocks(response: Response): AsyncGenerator<string, void, void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const parts = text.split(/\r?\n\r?\n/);
      text = parts.pop()!;
      yield* parts;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
