import assert from "node:assert/strict";
import fc from "fast-check";
import { ApiError } from "./api.ts";
import { eventData } from "./event_stream.ts";

const encoder = new TextEncoder();

/** A body that arrives in pieces, cut anywhere: inside characters and line ends too. */
function streamed(text: string, cuts: readonly number[]): Response {
  const bytes = encoder.encode(text);
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const pieces = [...at, bytes.length].map((end, i) => bytes.slice(at[i - 1] ?? 0, end));
  return new Response(ReadableStream.from(pieces));
}
const all = (response: Response) => Array.fromAsync(eventData(response));

Deno.test("eventData() reads the same events however the bytes arrive", async () => {
  const property = fc.asyncProperty(
    fc.array(fc.string({ unit: "grapheme" }).map((text) => ({ text }))),
    fc.array(fc.nat()),
    fc.constantFrom("\n", "\r\n"),
    async (events, cuts, end) => {
      const lines = events.map((e, i) =>
        `: comment${end}id: ${i}${end}data: ${JSON.stringify(e)}${end}${end}`
      );
      const text = `${lines.join("")}data: [DONE]${end}${end}data: {"after":true}${end}${end}`;
      assert.deepEqual(await all(streamed(text, cuts)), events);
    },
  );
  await fc.assert(property);
});

Deno.test("eventData() throws an error that comes in the middle of a stream", async () => {
  const error = { message: "The model was deleted", type: "server_error", param: null, code: "unavailable" };
  const response = streamed(`data: {"choices":[]}\n\ndata: ${JSON.stringify({ error })}\n\n`, []);
  await assert.rejects(
    all(response),
    (e) => e instanceof ApiError && e.code === "unavailable" && e.message === error.message,
  );
});
