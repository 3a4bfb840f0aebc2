/** tokenizer.json as `tokenizer.ggml.*`: the way back of models/formats/gguf_tokenizer.ts. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import type { TokenizerFiles } from "../models/checkpoint.ts";
import { isJsonObject, type JsonObject } from "../models/formats/json_file.ts";
import { preTokenizerName } from "../models/formats/gguf_pre_tokenizers.ts";
import { TOKEN_TYPE } from "../models/formats/sentence_piece.ts";
import type { GgufEntry } from "./gguf_encoder.ts";

const schema = z.object({
  added_tokens: z.array(z.object({ id: z.int(), content: z.string(), special: z.boolean().default(false) }))
    .default([]),
  model: z.object({
    type: z.literal("BPE"),
    vocab: z.record(z.string(), z.int().min(0)),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
    unk_token: z.string().nullish(),
    byte_fallback: z.boolean().default(false),
  }),
});
type Parsed = z.infer<typeof schema>;

/**
 * @param options.rows of the embedding: as many tokens, those without a text unused
 * @throws {OatmillError} unsupported_format for a tokenizer that llama.cpp has no word for
 */
export function tokenizerMetadata(
  { tokenizer, config, chatTemplate, toolTemplate }: TokenizerFiles,
  { rows, bosId, eosId }: {
    readonly rows: number;
    readonly bosId: number | null;
    readonly eosId: number | null;
  },
): Record<string, GgufEntry> {
  const parsed = schema.safeParse(tokenizer);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw refused(`${path.join(".")}: ${message}`);
  }
  const { tokens, types } = tokenList(parsed.data, rows), ids = new Map(tokens.map((text, id) => [text, id]));
  const kind = usesByteLevel(tokenizer)
    ? byteLevel(tokenizer, parsed.data)
    : sentencePiece(tokenizer, parsed.data, { tokens, types });
  const idOf = (name: string) => {
    const token = config[name], text = isJsonObject(token) ? token.content : token;
    return typeof text === "string" ? ids.get(text) ?? null : null;
  };
  const named = {
    bos: idOf("bos_token") ?? bosId,
    eos: idOf("eos_token") ?? eosId,
    unknown: idOf("unk_token") ?? (parsed.data.model.unk_token ? ids.get(parsed.data.model.unk_token) : null),
    padding: idOf("pad_token"),
  };
  const { first, last } = specialTokens(tokenizer.post_processor);
  return {
    ...kind,
    "tokenizer.ggml.tokens": { strings: tokens },
    "tokenizer.ggml.token_type": { i32s: types },
    ...Object.fromEntries(
      Object.entries(named).filter(([, id]) => typeof id === "number")
        .map(([name, id]) => [`tokenizer.ggml.${name}_token_id`, { u32: id as number }]),
    ),
    "tokenizer.ggml.add_bos_token": { bool: first },
    "tokenizer.ggml.add_eos_token": { bool: last },
    ...chatTemplate === null ? {} : { "tokenizer.chat_template": { string: chatTemplate } },
    ...toolTemplate
      ? {
        "tokenizer.chat_templates": { strings: ["tool_use"] },
        "tokenizer.chat_template.tool_use": { string: toolTemplate },
      }
      : {},
  };
}

/** Texts and types of all ids. */
function tokenList(
  { model: { vocab, unk_token: unknown }, added_tokens: added }: Parsed,
  rows: number,
): { readonly tokens: string[]; readonly types: number[] } {
  const types = new Array<number>(rows).fill(TOKEN_TYPE.unused);
  const tokens = Array.from({ length: rows }, (_, id) => `[PAD${id}]`); // every text once, as llama.cpp wants
  const set = (id: number, text: string, type: number) => {
    if (id >= rows) throw refused(`token "${text}" has id ${id}, the embedding has ${rows} rows`);
    [tokens[id], types[id]] = [text, type];
  };
  for (const [text, id] of Object.entries(vocab)) {
    set(id, text, /^<0x[0-9A-F]{2}>$/.test(text) ? TOKEN_TYPE.byte : TOKEN_TYPE.normal);
  }
  for (const { id, content, special } of added) {
    set(id, content, special ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined);
  }
  if (unknown && Object.hasOwn(vocab, unknown)) types[vocab[unknown]] = TOKEN_TYPE.unknown;
  return { tokens, types };
}

const mergePair = (merge: string | readonly [string, string]): readonly [string, string] => {
  if (typeof merge !== "string") return merge;
  const space = merge.indexOf(" ", 1); // a piece may itself begin with one
  return [merge.slice(0, space), merge.slice(space + 1)];
};

function byteLevel(tokenizer: JsonObject, { model: { merges } }: Parsed): Record<string, GgufEntry> {
  const name = preTokenizerName(tokenizer);
  if (name === undefined) throw refused("its pre-tokenizer has no name in llama.cpp");
  return {
    "tokenizer.ggml.model": { string: "gpt2" },
    "tokenizer.ggml.pre": { string: name },
    "tokenizer.ggml.merges": { strings: merges.map((merge) => mergePair(merge).join(" ")) },
  };
}

/** Merges in order are what scores say: the earlier a piece can be made, the higher its score. */
function sentencePiece(
  tokenizer: JsonObject,
  { model }: Parsed,
  { tokens, types }: { readonly tokens: readonly string[]; readonly types: readonly number[] },
): Record<string, GgufEntry> {
  const steps = stepsOf(tokenizer.normalizer, "normalizers");
  const spaces = [...steps, ...stepsOf(tokenizer.pre_tokenizer, "pretokenizers")];
  const known = spaces.every(({ type }) => ["Prepend", "Replace", "Metaspace"].includes(String(type)));
  if (!model.byte_fallback || !known || spaces.length === 0) {
    throw refused("it is neither byte-level BPE nor SentencePiece BPE with byte fallback");
  }
  const ranks = new Map<string, number>();
  model.merges.forEach((merge, rank) => {
    const piece = mergePair(merge).join("");
    if (!ranks.has(piece)) ranks.set(piece, rank);
  });
  const last = -model.merges.length - 1;
  const prefix = spaces.some(({ type, prepend_scheme: scheme }) =>
    type === "Prepend" || (type === "Metaspace" && scheme !== "never")
  );
  const scores = tokens.map((text, id) => types[id] === TOKEN_TYPE.normal ? -(ranks.get(text) ?? -last) : 0);
  return {
    "tokenizer.ggml.model": { string: "llama" },
    "tokenizer.ggml.pre": { string: "default" },
    "tokenizer.ggml.scores": { f32s: scores },
    "tokenizer.ggml.add_space_prefix": { bool: prefix },
  };
}

/** A component as a list: sequences hold theirs under `field`. */
function stepsOf(component: unknown, field: string): JsonObject[] {
  if (!isJsonObject(component)) return [];
  const inner = component[field];
  return Array.isArray(inner) ? inner.flatMap((step) => stepsOf(step, field)) : [component];
}

const usesByteLevel = (tokenizer: JsonObject): boolean =>
  stepsOf(tokenizer.pre_tokenizer, "pretokenizers").some(({ type }) => type === "ByteLevel");

/** Whether a text gets a token before it and behind it. */
function specialTokens(postProcessor: unknown): { readonly first: boolean; readonly last: boolean } {
  const template = stepsOf(postProcessor, "processors").find(({ type }) => type === "TemplateProcessing");
  const single = Array.isArray(template?.single) ? template.single : [];
  const isSpecial = (step: unknown) => isJsonObject(step) && "SpecialToken" in step;
  return { first: isSpecial(single[0]), last: single.length > 1 && isSpecial(single.at(-1)) };
}

const refused = (why: string) =>
  new OatmillError("unsupported_format", `Cannot write the tokenizer as GGUF: ${why}`);
