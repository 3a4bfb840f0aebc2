/** Images inside JSON: base64, alone or as a data URL. */
import { OatmillError } from "../errors.ts";

const DATA_URL = /^data:([^,]*),/i;

export const isDataUrl = (text: string): boolean => DATA_URL.test(text.slice(0, 200));

/**
 * The file's bytes. What the URL says of its type is not believed: the bytes say it.
 * @param param the field it came in
 * @throws {OatmillError} invalid_request: no base64
 */
export function imageBytes(text: string, param: string): Uint8Array {
  const head = DATA_URL.exec(text.slice(0, 200));
  if (head && !/;\s*base64$/i.test(head[1])) throw invalid("a data URL must say ;base64", param);
  if (/^https?:/i.test(text.slice(0, 10))) {
    throw invalid("images are not fetched; send the file as multipart, base64 or a data URL", param);
  }
  try {
    const body = head ? text.slice(head[0].length) : text;
    return Uint8Array.fromBase64(body.trimEnd(), { alphabet: /[-_]/.test(body) ? "base64url" : "base64" });
  } catch (cause) {
    throw new OatmillError("invalid_request", `Invalid value of "${param}": it is not base64`, param, {
      cause,
    });
  }
}

const invalid = (why: string, param: string) =>
  new OatmillError("invalid_request", `Invalid value of "${param}": ${why}`, param);
