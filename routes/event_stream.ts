/**
 * Server-sent events. The stream is ours, not Hono's helper (which swallows write errors and reports failures as plain
 * text): a client that leaves ends the source at once, and a client that reads slowly slows the source down.
 */
const encoder = new TextEncoder();

/** Of a route's answer. No type: tools take a schema here for the whole text or for each event. */
export const EVENT_STREAM = { "text/event-stream": { schema: { description: "Server-sent events" } } };

export const dataEvent = (data: unknown): string =>
  `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;

/** An event whose type stands in its `event:` line too. */
export const typedEvent = (event: { readonly type: string }): string =>
  `event: ${event.type}\n${dataEvent(event)}`;

/** A client that takes nothing of what is there for so long holds memory for nobody. */
const STALL_MS = 60_000;

/**
 * @param source yields whole events; it must not throw (write the error as an event instead)
 * @param onLeave called once when the client is gone before the end, or has read nothing for `stallMs`
 */
export function eventStream(
  source: AsyncGenerator<string, void, void>,
  onLeave: () => void,
  { stallMs = STALL_MS }: { readonly stallMs?: number } = {},
): Response {
  /** Since when an event waits to be taken. */
  let waitingSince = Infinity, watch: ReturnType<typeof setInterval> | undefined;
  const leave = async () => {
    clearInterval(watch);
    onLeave();
    await source.return();
  };
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      watch = setInterval(() => {
        if (performance.now() - waitingSince <= stallMs) return;
        controller.error(new Error("The client stopped reading"));
        leave();
      }, stallMs / 4);
    },
    async pull(controller) {
      waitingSince = Infinity;
      const { done, value } = await source.next();
      if (done) {
        clearInterval(watch);
        controller.close();
        return;
      }
      controller.enqueue(encoder.encode(value));
      waitingSince = performance.now();
    },
    cancel: leave,
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
