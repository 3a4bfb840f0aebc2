/** A byte-level BPE vocabulary (vocab and merges) as tokenizer.json: GPT-2's own files, and GGUF vocabularies. */
import type { TokenizerFiles } from "../checkpoint.ts";
import type { JsonObject } from "./json_file.ts";

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

export interface ByteLevelOptions {
  /** Split by GPT-2's rule unless another pre-tokenizer is given. */
  readonly preTokenizer?: JsonObject;
  readonly normalizer?: JsonObject | null;
  /** A whole word that is in the vocabulary is never split (llama 3). */
  readonly ignoreMerges?: boolean;
  readonly added?: readonly AddedToken[];
  /** Put before every text. */
  readonly bos?: string | null;
  readonly config?: JsonObject;
  readonly chatTemplate?: string | null;
}

export const GPT2_PRE_TOKENIZER: JsonObject = {
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
};

/** @param merges lines "left right", or the content of merges.txt with its version line */
export function byteLevelFiles(
  vocab: Readonly<Record<string, number>>,
  merges: string | readonly string[],
  options: ByteLevelOptions = {},
): TokenizerFiles {
  const { preTokenizer = GPT2_PRE_TOKENIZER, normalizer = null, ignoreMerges = false } = options;
  const added = options.added ?? defaultAdded(vocab);
  const lines = typeof merges === "string"
    ? merges.split(/\r?\n/).filter((l) => l && !l.startsWith("#version"))
    : merges;
  return {
    tokenizer: {
      version: "1.0",
      added_tokens: added.map(addedTokenJson),
      normalizer,
      pre_tokenizer: preTokenizer,
      post_processor: bosTemplate(vocab, options.bos ?? null),
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", vocab, merges: lines, ignore_merges: ignoreMerges },
    },
    config: options.config ?? {},
    chatTemplate: options.chatTemplate ?? null,
  };
}

/** A null prototype, so that a token may be called "__proto__". */
export function idsOf(tokens: readonly string[]): Record<string, number> {
  const ids: Record<string, number> = Object.create(null);
  tokens.forEach((token, id) => ids[token] ??= id);
  return ids;
}

export function addedTokenJson({ id, content, special }: AddedToken): JsonObject {
  return { id, content, special, single_word: false, lstrip: false, rstrip: false, normalized: false };
}

/** A post-processor that puts `bos` before the text; null = none. */
export function bosTemplate(vocab: Readonly<Record<string, number>>, bos: string | null): JsonObject | null {
  if (bos === null) return null;
  const special = { SpecialToken: { id: bos, type_id: 0 } };
  return {
    type: "TemplateProcessing",
    single: [special, { Sequence: { id: "A", type_id: 0 } }],
    pair: [special, { Sequence: { id: "A", type_id: 0 } }, special, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { [bos]: { id: bos, ids: [vocab[bos]], tokens: [bos] } },
  };
}

/** GPT-2's files mark no token as special, but it has one. */
function defaultAdded(vocab: Readonly<Record<string, number>>): AddedToken[] {
  const content = "<|endoftext|>";
  return Object.hasOwn(vocab, content) ? [{ id: vocab[content], content, special: true }] : [];
}
