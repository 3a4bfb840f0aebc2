/** Text to token ids and back, and chat templates. The only file that knows @huggingface/tokenizers. */
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { OatmillError } from "../errors.ts";
import { type ChatMessage, ChatTemplates, type RenderOptions, type ToolSupport } from "./chat_templates.ts";
import type { TokenizerFiles } from "./checkpoint.ts";
import { isJsonObject } from "./formats/json_file.ts";
import { type Assembler, type Piece, tokenDecoder } from "./token_decoder.ts";
import { checkTokenizerJson } from "./tokenizer_check.ts";

export type { ChatMessage } from "./chat_templates.ts";

/** Incremental decode: the pushes and the end joined equal `decode()` of all ids. */
export interface TokenStream {
  /** Text that is whole now; "" while a character is incomplete. */
  push(id: number): string;
  /** What was held back. */
  end(): string;
}

export interface StreamOptions {
  readonly skipSpecialTokens?: boolean;
  /**
   * Ids that stand before, such as the prompt: their text is not emitted, but the first token after them keeps its space
   * (SentencePiece drops it at the start of a text only). decode(after + ids) = decode(after) + what the stream emits.
   */
  readonly after?: readonly number[];
}

export interface Tokenizer {
  /** Highest id + 1, added tokens included. */
  readonly vocabSize: number;
  /** Characters of the longest entry of the vocabulary. */
  readonly longestToken: number;
  readonly hasChatTemplate: boolean;
  readonly toolSupport: ToolSupport;
  readonly eosIds: number[];
  /** Special tokens (BOS) are added unless `addSpecialTokens` is false; special-token text in `text` is matched. */
  encode(text: string, o?: { readonly addSpecialTokens?: boolean }): number[];
  decode(ids: readonly number[], o?: { readonly skipSpecialTokens?: boolean }): string;
  stream(o?: StreamOptions): TokenStream;
  /** The token as its vocabulary writes it ("Ġthe", "▁the", "<0x0A>"). */
  tokenText(id: number): string;
  /** The bytes the token stands for; may be a part of a character. */
  tokenBytes(id: number): Uint8Array;
  tokenId(text: string): number | null;
  /** Whether it stands for something other than text, as an end or a role does. */
  isSpecial(id: number): boolean;
  /** @throws {OatmillError} invalid_chat_template (none, fails, or costs too much) */
  renderChat(messages: ChatMessage[], o?: RenderOptions): string;
}

/**
 * @param options.checked the files are known to be those of a tokenizer that loaded once: an artifact's, by their hashes
 * @throws {OatmillError} invalid_tokenizer, invalid_chat_template
 */
export function loadTokenizer(files: TokenizerFiles, { checked = false } = {}): Tokenizer {
  checkTokenizerJson(files.tokenizer, { vocabulary: !checked });
  return new HubBackedTokenizer(files);
}

/** Encodes with @huggingface/tokenizers; decodes by {@linkcode tokenDecoder}, which can be asked token by token. */
class HubBackedTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly longestToken: number;
  readonly eosIds: number[];
  readonly #hub: HubTokenizer;
  readonly #tokens: readonly (string | undefined)[];
  readonly #specialIds: ReadonlySet<number>;
  readonly #decoder: ReturnType<typeof tokenDecoder>;
  readonly #pieces = new Map<number, Piece>();
  readonly #templates: ChatTemplates;

  constructor(files: TokenizerFiles) {
    const { tokenizer, config } = files;
    this.#decoder = tokenDecoder(tokenizer.decoder);
    this.#hub = createHubTokenizer(tokenizer);
    const vocab = this.#hub.get_vocab();
    this.#tokens = idsToTokens(vocab);
    this.vocabSize = this.#tokens.length;
    this.longestToken = this.#tokens.reduce((most, token) => Math.max(most, token?.length ?? 0), 0);
    const added = [...this.#hub.get_added_tokens_decoder()];
    this.#specialIds = new Set(added.filter(([, token]) => token.special).map(([id]) => id));
    const named = namedTokens(config);
    const eos = this.tokenId(named.eos_token ?? "");
    this.eosIds = eos === null ? [] : [eos];
    this.#templates = new ChatTemplates(files, named);
  }

  get hasChatTemplate(): boolean {
    return this.#templates.some;
  }
  get toolSupport(): ToolSupport {
    return this.#templates.toolSupport;
  }

  encode(text: string, { addSpecialTokens = true }: { readonly addSpecialTokens?: boolean } = {}): number[] {
    return this.#hub.encode(text, { add_special_tokens: addSpecialTokens }).ids;
  }

  decode(ids: readonly number[], o: { readonly skipSpecialTokens?: boolean } = {}): string {
    const stream = this.stream(o);
    return ids.map((id) => stream.push(id)).join("") + stream.end();
  }

  stream({ skipSpecialTokens = false, after = [] }: StreamOptions = {}): TokenStream {
    const assembler: Assembler = this.#decoder.assembler();
    const push = (id: number) => {
      const skip = this.#tokens[id] === undefined || (skipSpecialTokens && this.#specialIds.has(id));
      return skip ? "" : assembler.push(this.#piece(id));
    };
    for (const id of after) push(id);
    return { push, end: () => assembler.end() };
  }

  tokenText(id: number): string {
    return this.#tokens[id] ?? "";
  }

  tokenBytes(id: number): Uint8Array {
    return this.#tokens[id] === undefined ? new Uint8Array() : this.#piece(id).bytes;
  }

  tokenId(text: string): number | null {
    return this.#hub.token_to_id(text) ?? null;
  }

  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  renderChat(messages: ChatMessage[], o?: RenderOptions): string {
    return this.#templates.render(messages, o);
  }

  #piece(id: number): Piece {
    let piece = this.#pieces.get(id);
    if (!piece) this.#pieces.set(id, piece = this.#decoder.piece(this.#tokens[id] ?? ""));
    return piece;
  }
}

function createHubTokenizer(json: Readonly<Record<string, unknown>>): HubTokenizer {
  try {
    // Own decoding needs no decoder of the library; its config only feeds decoding and very old vocabularies.
    return new HubTokenizer(
      {
        normalizer: null,
        pre_tokenizer: null,
        post_processor: null,
        ...json,
        added_tokens: json.added_tokens ?? [],
        decoder: null,
      },
      {},
    );
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new OatmillError("invalid_tokenizer", `Cannot use tokenizer.json: ${why.slice(0, 300)}`, null, {
      cause,
    });
  }
}

function idsToTokens(vocab: ReadonlyMap<string, number>): (string | undefined)[] {
  const tokens: (string | undefined)[] = [];
  for (const [token, id] of vocab) tokens[id] = token;
  return tokens;
}

/** `bos_token`, `eos_token`, ... of tokenizer_config.json: templates use them as variables. */
function namedTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (
    const name of ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"]
  ) {
    const value = config[name];
    const text = isJsonObject(value) ? value.content : value;
    if (typeof text === "string") tokens[name] = text;
  }
  return tokens;
}
