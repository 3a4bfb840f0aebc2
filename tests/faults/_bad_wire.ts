/** What is no HTTP, sent as bytes: the server refuses or hangs up. Its parser does so, before there is a request. */
import type { FaultReport } from "./report.ts";

const HEAD = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

const MESSAGES: Readonly<Record<string, string>> = {
  "no HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  "bytes": "\0".repeat(1000),
  "a line without an end": "G".repeat(100_000),
  "no version": "GET /healthz\r\n\r\n",
  "an unknown version": "GET /v1/nothing HTTP/9.9\r\nhost: localhost\r\n\r\n",
  "a space too many": "GET  /healthz HTTP/1.1\r\n\r\n",
  "a method of no letters": "G(T /v1/nothing HTTP/1.1\r\nhost: localhost\r\n\r\n",
  "a header without a colon": "GET /healthz HTTP/1.1\r\nhost localhost\r\n\r\n",
  "a header with a blank name": "GET /healthz HTTP/1.1\r\n : x\r\n\r\n",
  "a NUL in a header": "GET /healthz HTTP/1.1\r\nhost: local\0host\r\n\r\n",
  "thousands of headers": `GET /healthz HTTP/1.1\r\n${"x: y\r\n".repeat(20_000)}\r\n`,
  "a huge header": `GET /healthz HTTP/1.1\r\nx: ${"y".repeat(2 ** 20)}\r\n\r\n`,
  "a negative length": `${HEAD}content-length: -1\r\n\r\n{}`,
  "a length of words": `${HEAD}content-length: many\r\n\r\n{}`,
  "a length of 2^70": `${HEAD}content-length: 1180591620717411303424\r\n\r\n{}`,
  "two lengths": `${HEAD}content-length: 2\r\ncontent-length: 20\r\n\r\n{}`,
  "a length beyond the body": `${HEAD}content-length: 1000\r\n\r\n{}`,
  "a chunk of no size": `${HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`,
  "a chunk without an end": `${HEAD}transfer-encoding: chunked\r\n\r\nff\r\n{}`,
  "chunks without an end": `${HEAD}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n`,
  "a chunk of 2^64": `${HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}`,
  "an unknown encoding": `${HEAD}transfer-encoding: rot13\r\n\r\n{}`,
  "a body that is cut": `${HEAD}content-length: 40\r\n\r\n{"model":"stories-5m","prom`,
};

/** Longer than the server's own deadline for what does not come would be no refusal. */
const DEADLINE_MS = 20_000;

export async function sendBadBytes(port: number): Promise<Pick<FaultReport, "bad_inputs" | "failures">> {
  const results = await Promise.all(
    Object.entries(MESSAGES).map(async ([what, message]) => {
      const answer = await exchange(port, message).catch(() => ""); // hung up
      const refused = answer === "" || /^HTTP\/1\.[01] 4\d\d /.test(answer);
      return refused ? null : `Bytes, ${what}: ${answer.slice(0, 200)}`;
    }),
  );
  const failures = results.filter((wrong) => wrong !== null);
  return { bad_inputs: { tried: results.length, refused: results.length - failures.length }, failures };
}

/** Sends, closes its side, and reads what comes until the server hangs up. */
async function exchange(port: number, message: string): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const deadline = setTimeout(() => connection.close(), DEADLINE_MS);
  try {
    const writer = connection.writable.getWriter();
    await writer.write(Uint8Array.from(message, (c) => c.charCodeAt(0)));
    await connection.closeWrite();
    let answer = "";
    for await (const chunk of connection.readable) answer += new TextDecoder().decode(chunk);
    return answer;
  } finally {
    clearTimeout(deadline);
  }
}
