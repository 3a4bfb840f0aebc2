import assert from "node:assert/strict";
import fc from "fast-check";
import { SseParser } from "./sse.ts";

function parse(bytes: Uint8Array, borders: readonly number[] = []): string[] {
  const parser = new SseParser(), found: string[] = [];
  const cuts = [0, ...borders.map((b) => b % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  for (let i = 1; i < cuts.length; i++) {
    parser.push(bytes.subarray(cuts[i - 1], cuts[i]), (d) => found.push(d));
  }
  return found;
}
const bytesOf = (text: string) => new TextEncoder().encode(text);

Deno.test("a stream is the same events wherever its pieces are cut and however its lines end", () => {
  const line = fc.string({ unit: "binary" }).map((s) => s.replaceAll(/[\r\n]/g, ""));
  const events = fc.array(fc.array(line, { minLength: 1, maxLength: 3 }));
  const noise = fc.constantFrom("", ": ping", "event: x", "id: 4", "retry: 9", "dataset: 1");
  fc.assert(
    fc.property(
      events,
      fc.constantFrom("\n", "\r\n", "\r"),
      noise,
      fc.array(fc.nat()),
      (events, end, noise, borders) => {
        const lines = events.flatMap((data) => [
          ...noise ? [noise] : [],
          ...data.map((d) => `data: ${d}`),
          "",
        ]);
        const text = lines.map((l) => l + end).join("");
        assert.deepEqual(parse(bytesOf(text), borders), events.map((data) => data.join("\n")));
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("data without a space or a value counts, an event without an end does not", () => {
  assert.deepEqual(parse(bytesOf("data:x\n\ndata\n\ndata:  y\n\ndata: lost\n")), ["x", "", " y"]);
  assert.deepEqual(parse(bytesOf("\uFEFFdata: x\n\n\n\n")), ["x"]);
});
