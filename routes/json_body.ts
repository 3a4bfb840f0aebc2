/** A JSON body where the route's validator does not read it: what a form can be too, or what has error codes of its own. */
import { OatmillError } from "../errors.ts";

/** @throws {OatmillError} invalid_request, too_large */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new OatmillError("too_large", `Body exceeds the allowed ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(await new Blob(chunks).text());
  } catch {
    throw new OatmillError("invalid_request", "The body is not JSON");
  }
}
