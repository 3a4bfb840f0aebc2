/**
 * `source_config.json` of an artifact: what config.json and generation_config.json of its source said, so that the model
 * can leave again in a form that other programs open (export/). The engine reads the spec instead.
 */
import { join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { SourceConfig } from "../checkpoint.ts";
import { readJsonFile } from "./json_file.ts";

/** Not config.json: then the folder would look like one of Hugging Face, with weights that none of its readers knows. */
export const SOURCE_CONFIG_FILE = "source_config.json";

const schema = z.object({
  config: z.record(z.string(), z.unknown()),
  floatFields: z.array(z.string()),
  generation: z.record(z.string(), z.unknown()).nullable(),
});

export const encodeSourceConfig = (source: SourceConfig): Uint8Array<ArrayBuffer> =>
  new TextEncoder().encode(JSON.stringify(source, null, 2) + "\n");

/**
 * @param folder an artifact
 * @returns null for artifacts from before the file was written
 * @throws {OatmillError} invalid_artifact
 */
export async function readSourceConfig(folder: string): Promise<SourceConfig | null> {
  const json = await readJsonFile(join(folder, SOURCE_CONFIG_FILE), "invalid_artifact");
  if (!json) return null;
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new OatmillError(
    "invalid_artifact",
    `Cannot read ${SOURCE_CONFIG_FILE} of "${folder}": it must hold "config", "floatFields" and "generation"`,
  );
}

/** What a reviver is told of a primitive value since ES2026; TypeScript does not know it yet. */
type Reviver = (key: string, value: unknown, context: { readonly source?: string }) => unknown;

/** Names of the fields of a valid JSON file with whole numbers that have a point or an exponent. */
export async function floatFieldsOf(path: string): Promise<string[]> {
  const fields = new Set<string>();
  const collect: Reviver = (key, value, { source = "" }) => {
    if (Number.isInteger(value) && /[.e]/i.test(source) && !/^\d+$/.test(key)) fields.add(key);
    return value;
  };
  JSON.parse(
    (await Deno.readTextFile(path)).replace(/^\uFEFF/, ""),
    collect as Parameters<typeof JSON.parse>[1],
  );
  return [...fields];
}

/** JSON text with the whole numbers of these fields written as floats. */
export function withFloatFields(value: unknown, floatFields: readonly string[]): string {
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
  const write = (key: string, item: unknown) =>
    floatFields.includes(key) && Number.isSafeInteger(item) ? rawJSON(`${item}.0`) : item;
  return JSON.stringify(value, write, 2) + "\n";
}
