/** A SentencePiece BPE vocabulary (pieces with scores) as tokenizer.json, the way transformers converts it. */
import type { TokenizerFiles } from "../checkpoint.ts";
import type { JsonObject } from "./json_file.ts";
import { addedTokenJson, bosTemplate, idsOf } from "./vocab_merges.ts";

/** llama_token_type of llama.cpp; SentencePiece uses the same numbers. */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface SentencePiece {
  readonly text: string;
  readonly score: number;
  /** {@linkcode TOKEN_TYPE} */
  readonly type: number;
}

export interface SentencePieceOptions {
  /** Text gets a space before its first word. */
  readonly addSpacePrefix: boolean;
  readonly bos: string | null;
  readonly config: JsonObject;
  readonly chatTemplate: string | null;
}

/** Longer pieces cannot be built by merges of public vocabularies (at most 16 characters, 64 for spaces). */
const MAX_MERGED_CHARS = 128;

export function sentencePieceFiles(
  pieces: readonly SentencePiece[],
  options: SentencePieceOptions,
): TokenizerFiles {
  const vocab = idsOf(pieces.map(({ text }) => text));
  const added = pieces.map(({ text, type }, id) => ({
    id,
    content: text,
    type,
    special: type !== TOKEN_TYPE.userDefined,
  }))
    .filter(({ type }) =>
      type === TOKEN_TYPE.unknown || type === TOKEN_TYPE.control || type === TOKEN_TYPE.userDefined
    );
  const unknown = pieces.find(({ type }) => type === TOKEN_TYPE.unknown)?.text ?? options.config.unk_token ??
    null;
  const prefix = options.addSpacePrefix ? [{ type: "Prepend", prepend: "▁" }] : [];
  const strip = options.addSpacePrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [];
  return {
    tokenizer: {
      version: "1.0",
      added_tokens: added.map(addedTokenJson),
      normalizer: {
        type: "Sequence",
        normalizers: [...prefix, { type: "Replace", pattern: { String: " " }, content: "▁" }],
      },
      pre_tokenizer: null,
      post_processor: bosTemplate(vocab, options.bos),
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "▁" }, content: " " },
          { type: "ByteFallback" },
          { type: "Fuse" },
          ...strip,
        ],
      },
      model: {
        type: "BPE",
        unk_token: unknown,
        fuse_unk: true,
        byte_fallback: pieces.some(({ type }) => type === TOKEN_TYPE.byte),
        vocab,
        merges: mergesOf(pieces, vocab),
      },
    },
    config: options.config,
    chatTemplate: options.chatTemplate,
  };
}

/**
 * Every way to put a piece together from two others, best score first: SentencePiece always joins the pair whose result
 * scores best (transformers, convert_slow_tokenizer.py, generate_merges).
 */
function mergesOf(
  pieces: readonly SentencePiece[],
  vocab: Readonly<Record<string, number>>,
): [string, string][] {
  const merges: { left: string; right: string; score: number }[] = [];
  for (const { text, score, type } of pieces) {
    if (type !== TOKEN_TYPE.normal || text.length > MAX_MERGED_CHARS) continue;
    const ways: typeof merges = [];
    for (let at = 1; at < text.length; at++) {
      const left = text.slice(0, at), right = text.slice(at);
      if (left in vocab && right in vocab) ways.push({ left, right, score });
    }
    ways.sort((a, b) => vocab[a.left] - vocab[b.left] || vocab[a.right] - vocab[b.right]);
    merges.push(...ways);
  }
  merges.sort((a, b) =>
    b.score - a.score || b.left.length - a.left.length || b.right.length - a.right.length
  );
  return merges.map(({ left, right }) => [left, right]);
}
