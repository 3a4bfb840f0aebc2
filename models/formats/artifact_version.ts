/** What an artifact holds, as one hash: the version of a model that is served under a name. */
import { createHash } from "node:crypto";
import type { AnyHeader } from "./graph_artifact.ts";

/** Of a header, what says how the artifact came to be and how good it is, not what it answers. */
const NOT_CONTENT = [
  "created",
  "oatmill",
  "name",
  "recipe",
  "source",
  "layers",
  "perplexity",
  "agreement",
  "recovery",
] as const satisfies readonly (keyof AnyHeader)[];

/**
 * SHA-256 in hex over the header without {@linkcode NOT_CONTENT}, as JSON with sorted keys. The header has the SHA-256 of
 * every other file, so artifacts of one version answer alike, whatever they are called and whenever they were made.
 */
export function artifactVersion(header: AnyHeader): string {
  const content = Object.entries(header).filter(([key]) => !(NOT_CONTENT as readonly string[]).includes(key));
  return createHash("sha256").update(JSON.stringify(Object.fromEntries(content), sorted)).digest("hex");
}

function sorted(_key: string, value: unknown): unknown {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1));
}
