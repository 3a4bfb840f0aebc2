/** A GGUF file's vocabulary (`tokenizer.ggml.*`) as tokenizer.json. */
import { OatmillError } from "../../errors.ts";
import type { TokenizerFiles } from "../checkpoint.ts";
import { templateOf } from "../tokenizer_files.ts";
import type { GgufValue } from "./gguf_value.ts";
import type { JsonObject } from "./json_file.ts";
import { preTokenizerOf } from "./gguf_pre_tokenizers.ts";
import { sentencePieceFiles, TOKEN_TYPE } from "./sentence_piece.ts";
import { byteLevelFiles, idsOf } from "./vocab_merges.ts";

type Metadata = ReadonlyMap<string, GgufValue>;

/**
 * @returns null when the file carries no vocabulary
 * @throws {OatmillError} invalid_tokenizer, invalid_chat_template
 */
export function tokenizerFromGguf(metadata: Metadata): TokenizerFiles | null {
  const files = vocabularyFiles(metadata);
  return files && { ...files, toolTemplate: templateOf(metadata.get("tokenizer.chat_template.tool_use")) };
}

function vocabularyFiles(metadata: Metadata): TokenizerFiles | null {
  const model = metadata.get("tokenizer.ggml.model");
  if (model === undefined || model === "none" || model === "no_vocab") return null;
  const tokens = stringList(metadata, "tokens");
  const types = numberList(metadata, "token_type", tokens.length);
  const named = namedTokens(metadata, tokens);
  const chatTemplate = templateOf(metadata.get("tokenizer.chat_template"));
  if (model === "llama") {
    const scores = numberList(metadata, "scores", tokens.length);
    const pieces = tokens.map((text, id) => ({
      text,
      score: scores[id] ?? 0,
      type: types[id] ?? TOKEN_TYPE.normal,
    }));
    const addSpacePrefix = flag(metadata, "add_space_prefix", true);
    const bos = flag(metadata, "add_bos_token", true) ? named.bos_token ?? null : null;
    return sentencePieceFiles(pieces, { addSpacePrefix, bos, config: named, chatTemplate });
  }
  if (model !== "gpt2") {
    throw invalid(`model ${JSON.stringify(model)} is unsupported, known are llama and gpt2`);
  }
  const pre = metadata.get("tokenizer.ggml.pre") ?? "default";
  const rule = typeof pre === "string" ? preTokenizerOf(pre) : undefined;
  if (!rule) {
    throw invalid(
      `pre-tokenizer ${
        JSON.stringify(pre).slice(0, 80)
      } is unknown; splitting text by another would give wrong tokens`,
    );
  }
  const special = new Set<number>([TOKEN_TYPE.control, TOKEN_TYPE.unknown]);
  const added = tokens.map((content, id) => ({ id, content, special: special.has(types[id]) }))
    .filter(({ id }) => special.has(types[id]) || types[id] === TOKEN_TYPE.userDefined);
  return byteLevelFiles(idsOf(tokens), stringList(metadata, "merges"), {
    ...rule,
    added,
    bos: flag(metadata, "add_bos_token", rule.addsBos ?? false) ? named.bos_token ?? null : null,
    config: named,
    chatTemplate,
  });
}

function namedTokens(metadata: Metadata, tokens: readonly string[]): Record<string, string> & JsonObject {
  const names = { bos_token: "bos", eos_token: "eos", unk_token: "unknown", pad_token: "padding" };
  const config: Record<string, string> = {};
  for (const [field, name] of Object.entries(names)) {
    const id = metadata.get(`tokenizer.ggml.${name}_token_id`);
    const text = typeof id === "number" ? tokens[id] : undefined;
    if (text !== undefined) config[field] = text;
  }
  return config;
}

function stringList(metadata: Metadata, name: string): readonly string[] {
  const value = metadata.get(`tokenizer.ggml.${name}`);
  if (Array.isArray(value) && value.every((text) => typeof text === "string")) return value;
  throw invalid(`tokenizer.ggml.${name} is missing, must be a list of strings`);
}

/** Empty when the file has none. */
function numberList(metadata: Metadata, name: string, length: number): ArrayLike<number> {
  const value = metadata.get(`tokenizer.ggml.${name}`);
  if (value === undefined) return [];
  if (value instanceof Int32Array || value instanceof Uint32Array || value instanceof Float32Array) {
    if (value.length === length) return value;
  }
  throw invalid(`tokenizer.ggml.${name} must be a list of ${length} numbers`);
}

function flag(metadata: Metadata, name: string, missing: boolean): boolean {
  const value = metadata.get(`tokenizer.ggml.${name}`);
  return typeof value === "boolean" ? value : missing;
}

function invalid(why: string): OatmillError {
  return new OatmillError("invalid_tokenizer", `Cannot use the GGUF tokenizer: ${why}`);
}
