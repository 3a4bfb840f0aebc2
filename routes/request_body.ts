/**
 * Bodies as they arrive: no longer than allowed, also where nobody says their length, and not slower than a client that is
 * still there would send them.
 */
import { OatmillError } from "../errors.ts";

/** A client that sends nothing for so long is gone, or holds a connection for its own sake. */
export const BODY_IDLE_MS = 30_000;

export interface BodyOptions {
  /** Infinity: something else counts. */
  readonly maxBytes: number;
  readonly idleMs?: number;
}

/** @throws {OatmillError} too_large, request_timeout; ending early cancels the body */
export async function* chunksOf(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  { maxBytes, idleMs = BODY_IDLE_MS }: BodyOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  const reader = body.getReader();
  let bytes = 0, whole = false;
  try {
    for (;;) {
      const { done, value } = await inTime(reader.read(), idleMs);
      if (done) {
        whole = true;
        return;
      }
      bytes += value.length;
      if (bytes > maxBytes) throw bodyTooLarge(maxBytes);
      yield value;
    }
  } finally {
    if (!whole) reader.cancel().catch(() => {}); // the client may be gone
  }
}

export const bodyTooLarge = (maxBytes: number): OatmillError =>
  new OatmillError("too_large", `Body exceeds the allowed ${maxBytes} bytes`);

/** @throws {OatmillError} request_timeout */
export async function inTime<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          new OatmillError("request_timeout", `The body did not arrive: nothing came for ${ms / 1000} s`),
        ),
      ms,
    );
  });
  work.catch(() => {}); // when it is late nobody else hears it
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
