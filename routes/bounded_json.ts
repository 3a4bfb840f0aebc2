/**
 * JSON bodies before a schema sees them: read within bounds of size, time and memory, and refused when they hold so many
 * values that checking them alone would hold the HTTP thread (a list of 7 million wrong ids took 16 s).
 */
import { createMiddleware } from "hono/factory";
import { OatmillError } from "../errors.ts";
import type { AppEnv } from "./app_env.ts";
import { BODY_IDLE_MS, bodyTooLarge, chunksOf, inTime } from "./request_body.ts";

/** Bodies up to here are read by Deno's own fast path, and are neither counted nor looked through. */
const SMALL_BYTES = 64 * 1024;
/** Numbers, as in token ids: a context of 128 Ki, twice. */
const MAX_NUMBERS = 2 ** 18;
/** Strings, keys, lists and all else: schemas look at each, and note what is wrong with each. */
const MAX_OTHERS = 2 ** 14;

export interface JsonBodyOptions {
  readonly maxBytes: number;
  /** Of all larger bodies whose requests are under way. */
  readonly maxTotalBytes?: number;
  readonly idleMs?: number;
}

/**
 * Leaves the text where `c.req.json()` finds it. Forms pass by.
 * @throws {OatmillError} too_large, request_timeout, rate_limit_exceeded (memory), invalid_request (values)
 */
export function readJsonBody(
  { maxBytes, maxTotalBytes = 16 * maxBytes, idleMs = BODY_IDLE_MS }: JsonBodyOptions,
) {
  let totalBytes = 0;
  return createMiddleware<AppEnv>(async (c, next) => {
    const { raw } = c.req, declared = c.req.header("content-length");
    if (declared !== undefined && Number(declared) > maxBytes) throw bodyTooLarge(maxBytes);
    if (raw.body === null || !/\bjson\b/i.test(c.req.header("content-type") ?? "")) return await next();
    if (declared !== undefined && Number(declared) <= SMALL_BYTES) {
      await inTime(c.req.text(), idleMs);
      return await next();
    }
    let held = 0;
    const hold = (bytes: number) => {
      if (totalBytes + bytes > maxTotalBytes) throw tooMany();
      totalBytes += bytes;
      held += bytes;
    };
    const release = () => totalBytes -= held;
    try {
      const text = await readText(raw.body, { maxBytes, idleMs, hold });
      checkValues(text);
      // Typed as the text, used as its promise (c.req.text() puts one there too).
      c.req.bodyCache.text = Promise.resolve(text) as unknown as string;
      await next();
    } finally {
      if (c.env?.completed) c.env.completed.then(release, release);
      else release();
    }
  });
}

async function readText(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  { hold, ...bounds }: {
    readonly maxBytes: number;
    readonly idleMs: number;
    readonly hold: (bytes: number) => void;
  },
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of chunksOf(body, bounds)) {
    hold(chunk.length);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * Counts what begins behind a comma outside of strings: 20 ms for 16 MB.
 * @throws {OatmillError} invalid_request
 */
export function checkValues(json: string): void {
  if (json.length <= SMALL_BYTES) return;
  let numbers = 0, others = 0;
  for (let i = 0; i < json.length; i++) {
    const code = json.charCodeAt(i);
    if (code === 0x22) i = endOfString(json, i);
    else if (code === 0x2c) {
      if (beginsNumber(json, i + 1)) numbers++;
      else others++;
      if (numbers > MAX_NUMBERS) throw tooManyValues(`${MAX_NUMBERS} numbers`);
      if (others > MAX_OTHERS) throw tooManyValues(`${MAX_OTHERS} values besides numbers`);
    }
  }
}
function beginsNumber(json: string, i: number): boolean {
  while (json.charCodeAt(i) <= 0x20) i++;
  const code = json.charCodeAt(i);
  return code === 0x2d || (code >= 0x30 && code <= 0x39);
}
const tooManyValues = (what: string): OatmillError =>
  new OatmillError("invalid_request", `The body has more than ${what}: send fewer at once`);

/** The closing quote of the string that opens at `i`: one that an even number of backslashes precedes. */
function endOfString(json: string, i: number): number {
  for (let end = json.indexOf('"', i + 1); end >= 0; end = json.indexOf('"', end + 1)) {
    let from = end;
    while (json.charCodeAt(from - 1) === 0x5c) from--;
    if ((end - from) % 2 === 0) return end;
  }
  return json.length; // JSON.parse says what is wrong with it
}

const tooMany = (): OatmillError =>
  new OatmillError("rate_limit_exceeded", "Too many large bodies are under way. Retry later");
