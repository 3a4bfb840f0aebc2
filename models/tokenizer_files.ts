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
} as const;

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
  return tokenizer ? { tokenizer, config, chatTemplate } : await readOlderFiles(folder, config, chatTemplate);
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
