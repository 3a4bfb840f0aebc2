/**
 * The tokenizer's files of a model folder: tokenizer.json, tokenizer_config.json, chat_template.jinja. Folders from before
 * tokenizer.json (Vicuna's, GPT-2's) hold a SentencePiece tokenizer.model or vocab.json and merges.txt instead.
 */
import { basename, join } from "node:path";
import { OatmillError } from "../errors.ts";
import type { TokenizerFiles } from "./checkpoint.ts";
import { isJsonObject, type JsonObject, readJsonFile } from "./formats/json_file.ts";
import { tokenizerFromSentencePiece } from "./formats/sentence_piece_model.ts";
import { byteLevelFiles } from "./formats/vocab_merges.ts";

const NAMES = {
  tokenizer: "tokenizer.json",
  config: "tokenizer_config.json",
  chatTemplate: "chat_template.jinja",
  toolTemplate: "additional_chat_templates/tool_use.jinja",
} as const;

/** What transformers calls the template of conversations with tools. */
const TOOL_USE = "tool_use";

/** The largest chat templates met have 20 kB. */
export const MAX_TEMPLATE_CHARS = 512 * 1024;

/** Far above public vocabularies (GPT-2's merges have 0.5 MB, Gemma's model 4 MB). */
const MAX_VOCABULARY_BYTES = 64 * 1024 * 1024;

/**
 * @returns null when the folder has no tokenizer
 * @throws {OatmillError} invalid_tokenizer, invalid_chat_template
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles | null> {
  const tokenizer = await readJsonFile(join(folder, NAMES.tokenizer), "invalid_tokenizer");
  const config = await readJsonFile(join(folder, NAMES.config), "invalid_tokenizer") ?? {};
  const chatTemplate = await readTemplateFile(join(folder, NAMES.chatTemplate)) ??
    templateOf(config.chat_template);
  const toolTemplate = await readTemplateFile(join(folder, NAMES.toolTemplate)) ??
    toolTemplateOf(config.chat_template);
  if (tokenizer) return { tokenizer, config, chatTemplate, toolTemplate };
  const older = await readOlderFiles(folder, config, chatTemplate);
  return older && { ...older, toolTemplate };
}

async function readOlderFiles(
  folder: string,
  config: JsonObject,
  chatTemplate: string | null,
): Promise<TokenizerFiles | null> {
  const model = await readBytes(join(folder, "tokenizer.model"));
  if (model) return tokenizerFromSentencePiece(model, config, chatTemplate);
  const vocab = await readJsonFile(join(folder, "vocab.json"), "invalid_tokenizer");
  const merges = await readBytes(join(folder, "merges.txt"));
  if (!vocab || !merges) return null;
  // The ids are checked when the tokenizer is loaded.
  return byteLevelFiles(vocab as Record<string, number>, new TextDecoder().decode(merges), {
    config,
    chatTemplate,
  });
}

async function readBytes(path: string): Promise<Uint8Array | null> {
  try {
    const { isFile, size } = await Deno.stat(path);
    if (!isFile || size > MAX_VOCABULARY_BYTES) {
      throw new OatmillError(
        "invalid_tokenizer",
        `Cannot read "${basename(path)}": it must be a file of at most ${MAX_VOCABULARY_BYTES} bytes`,
      );
    }
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Writes what {@linkcode readTokenizerFiles} reads back. The folder must exist. */
export async function writeTokenizerFiles(folder: string, files: TokenizerFiles): Promise<void> {
  const { chat_template: _, ...config } = files.config; // the template has its own file
  if (files.toolTemplate) config.chat_template = [{ name: TOOL_USE, template: files.toolTemplate }];
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
export const templateOf = (value: unknown): string | null =>
  checkedTemplate(Array.isArray(value) ? namedIn(value, "default") : value);

/** The one of a list that conversations with tools take, as in transformers. */
export const toolTemplateOf = (value: unknown): string | null =>
  Array.isArray(value) ? checkedTemplate(namedIn(value, TOOL_USE)) : null;

const namedIn = (list: readonly unknown[], name: string): unknown =>
  list.filter(isJsonObject).find((t) => t.name === name)?.template;

function checkedTemplate(named: unknown): string | null {
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
        `Cannot read ${basename(path)}: it must be a file within the size limit`,
      );
    }
    return templateOf(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
