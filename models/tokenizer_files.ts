/** The tokenizer's files of a model folder: tokenizer.json, tokenizer_config.json, chat_template.jinja. */
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import type { TokenizerFiles } from "./checkpoint.ts";
import { isJsonObject, readJsonFile } from "./formats/json_file.ts";

const NAMES = {
  tokenizer: "tokenizer.json",
  config: "tokenizer_config.json",
  chatTemplate: "chat_template.jinja",
} as const;

/** The largest chat templates met have 20 kB. */
export const MAX_TEMPLATE_CHARS = 512 * 1024;

/**
 * @returns null when the folder has no tokenizer.json
 * @throws {OatmillError} invalid_tokenizer, invalid_chat_template
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles | null> {
  const tokenizer = await readJsonFile(join(folder, NAMES.tokenizer), "invalid_tokenizer");
  if (!tokenizer) return null;
  const config = await readJsonFile(join(folder, NAMES.config), "invalid_tokenizer") ?? {};
  const chatTemplate = await readTemplateFile(join(folder, NAMES.chatTemplate)) ??
    templateOf(config.chat_template);
  return { tokenizer, config, chatTemplate };
}

/** Writes what {@linkcode readTokenizerFiles} reads back. The folder must exist. */
export async function writeTokenizerFiles(folder: string, files: TokenizerFiles): Promise<void> {
  const { chat_template: _, ...config } = files.config; // the template has its own file
  await Deno.writeTextFile(join(folder, NAMES.tokenizer), JSON.stringify(files.tokenizer));
  await Deno.writeTextFile(join(folder, NAMES.config), JSON.stringify(config, null, 2) + "\n");
  if (files.chatTemplate !== null) {
    await Deno.writeTextFile(join(folder, NAMES.chatTemplate), files.chatTemplate);
  }
}

/**
 * The template in a tokenizer_config.json: a string, or a list of named ones, of which "default" is taken.
 * @throws {OatmillError} invalid_chat_template when it is of another type or too long
 */
export function templateOf(value: unknown): string | null {
  const named = Array.isArray(value)
    ? value.find((t) => isJsonObject(t) && t.name === "default")?.template
    : value;
  if (named === undefined || named === null) return null;
  if (typeof named !== "string") {
    throw new OatmillError(
      "invalid_chat_template",
      `Cannot use chat_template: it is a ${typeof named}, must be a string`,
    );
  }
  if (named.length > MAX_TEMPLATE_CHARS) {
    throw new OatmillError(
      "invalid_chat_template",
      `Cannot use chat_template: it has ${named.length} characters, the limit is ${MAX_TEMPLATE_CHARS}`,
    );
  }
  return named;
}

async function readTemplateFile(path: string): Promise<string | null> {
  try {
    const { isFile, size } = await Deno.stat(path);
    if (!isFile || size > 4 * MAX_TEMPLATE_CHARS) {
      throw new OatmillError(
        "invalid_chat_template",
        `Cannot read ${NAMES.chatTemplate}: it must be a file within the size limit`,
      );
    }
    return templateOf(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
