/** The Range header (RFC 9110, section 14): one range of bytes. */
import { OatmillError } from "../errors.ts";
import type { ByteRange } from "../store/blob_store.ts";

/**
 * @param header of the request
 * @param size of the whole, in bytes
 * @returns null where the whole is to be sent: without a header, for other units, several ranges or what makes no sense
 * @throws {OatmillError} range_not_satisfiable
 */
export function byteRange(header: string | undefined, size: number): ByteRange | null {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "") ?? [];
  if (first === undefined || first + last === "") return null;
  if (first === "") return satisfiable({ start: Math.max(0, size - Number(last)), end: size }, size);
  if (last !== "" && Number(last) < Number(first)) return null;
  const end = last === "" ? size : Math.min(size, Number(last) + 1);
  return satisfiable({ start: Number(first), end }, size);
}

function satisfiable(range: ByteRange, size: number): ByteRange {
  if (range.start < range.end) return range;
  throw new OatmillError("range_not_satisfiable", `The file has ${size} bytes: no such range in it`, "range");
}
