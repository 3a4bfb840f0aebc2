/**
 * A whole answer that stops being made when its client leaves. Deno.serve sees a client leave only once the response has
 * begun (2.9.6; where head and body of a request come in packets of their own, as most clients send them, it missed 20 of
 * 20), so an answer that takes long begins before it is there.
 */
import type { Context } from "hono";

/**
 * @returns 200 with it as JSON. When it fails after its response began, the connection breaks: clients see no half answer
 * @throws whatever `answer` throws before
 */
export async function wholeAnswer(
  c: Context,
  answer: Promise<object>,
  { leave, beginAfterMs }: {
    /** Ends the making of the answer. */
    readonly leave: () => void;
    /** Answers before keep their length in the head, and their status when they fail. */
    readonly beginAfterMs: number;
  },
): Promise<Response> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<null>((done) => timer = setTimeout(() => done(null), beginAfterMs));
  const early = await Promise.race([answer, late]).finally(() => clearTimeout(timer));
  if (early !== null) return c.json(early, 200);
  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      try {
        controller.enqueue(new TextEncoder().encode(JSON.stringify(await answer)));
        controller.close();
      } catch (error) {
        controller.error(error); // without effect when the client left
      }
    },
    cancel: leave,
  });
  return c.body(body, 200, { "content-type": "application/json" });
}
