/** Entry names of an archive: what may become a file below the target folder. */
import { OatmillError } from "../../errors.ts";

const MAX_NAME_CHARS = 1024;
const MAX_SEGMENT_BYTES = 255;
const MAX_DEPTH = 16;

/**
 * The segments of a relative path; "." segments are dropped ("./config.json" is what `tar .` writes).
 * @throws {OatmillError} invalid_archive for anything that could leave the folder or means different files to different systems
 */
export function entrySegments(name: string): string[] {
  // deno-lint-ignore no-control-regex -- control characters are what is looked for
  if (name.length > MAX_NAME_CHARS || /[\x00-\x1f\x7f]/.test(name)) {
    throw refuse(name, "the name is not plain text");
  }
  if (!name.isWellFormed() || name.includes("\ufffd")) throw refuse(name, "the name is not valid UTF-8");
  if (name.startsWith("/")) throw refuse(name, "the path is absolute");
  if (name.includes("\\") || name.includes(":")) throw refuse(name, "the path holds a backslash or a colon");
  const segments = name.split("/").filter((segment) => segment !== "" && segment !== ".");
  if (segments.includes("..")) throw refuse(name, "the path leads outside the folder");
  if (segments.length > MAX_DEPTH) throw refuse(name, `the path is deeper than ${MAX_DEPTH}`);
  if (segments.some((segment) => new TextEncoder().encode(segment).length > MAX_SEGMENT_BYTES)) {
    throw refuse(name, "a part of the name is too long");
  }
  return segments;
}

export function refuse(name: string, why: string): OatmillError {
  return new OatmillError(
    "invalid_archive",
    `Cannot extract entry ${JSON.stringify(name.slice(0, 120))}: ${why}`,
  );
}
