/**
 * Server-sent events. The stream is ours, not Hono's helper (which swallows write errors and reports failures as plain
 * text): a client that leaves ends the source at once, and a client that reads slowly slows the source down.
 */
const encoder = new TextEncoder();

export const dataEvent = (data: unknown): string =>
  `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;

/** An event whose type stands in its `event:` line too. */
export const typedEvent = (event: { readonly type: string }): string =>
  `event: ${event.type}\n${dataEvent(event)}`;

/**
 * @param source yields whole events; it must not throw (write the error as an event instead)
 * @param onLeave called once when the client is gone before the end
 */
export function eventStream(source: AsyncGenerator<string, void, void>, onLeave: () => void): Response {
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await source.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    async cancel() {
      onLeave();
      await source.return();
    },
  });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // Proxies (nginx) must not hold tokens back.
      "x-accel-buffering": "no",
    },
  });
}
