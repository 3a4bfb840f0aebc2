/** A JSON body where the route's validator does not read it: what a form can be too, or what has error codes of its own. */
import { OatmillError } from "../errors.ts";
import { checkValues } from "./bounded_json.ts";
import { chunksOf } from "./request_body.ts";

/** @throws {OatmillError} invalid_request, too_large, request_timeout */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of request.body ? chunksOf(request.body, { maxBytes }) : []) chunks.push(chunk);
  const text = await new Blob(chunks).text();
  checkValues(text);
  try {
    return JSON.parse(text);
  } catch {
    throw new OatmillError("invalid_request", "The body is not JSON");
  }
}
