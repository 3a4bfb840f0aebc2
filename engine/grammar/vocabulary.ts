/** A tokenizer's vocabulary as grammars need it: what each token adds to a text, to the byte. */
import type { Tokenizer } from "../../models/tokenizer.ts";

export interface GrammarVocabulary {
  /** By id: the token's bytes in GPT-2's alphabet, which has a character for each byte; "" = must never come. */
  readonly tokens: readonly string[];
  /** Tokens that may come where the text may end; none: it ends where nothing more may come. */
  readonly stopIds: readonly number[];
}

/** Tokens between two pauses: 49,152 take 0.1 s, which HTTP must not wait for. */
const TOKENS_AT_ONCE = 2048;

/** By byte. Printable Latin-1 stands for itself, the others for what follows U+0100, in order (GPT-2's encoder.py). */
const ALPHABET: readonly string[] = (() => {
  const printable = (b: number) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b !== 0xad);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
})();

const known = new WeakMap<Tokenizer, Promise<readonly string[]>>();

/** Made once a tokenizer, a part at a time. */
export function vocabularyTokens(tokenizer: Tokenizer): Promise<readonly string[]> {
  let tokens = known.get(tokenizer);
  if (!tokens) known.set(tokenizer, tokens = spell(tokenizer));
  return tokens;
}

/** The same, but that tokens which write one of `marks` may come where the grammar has it, special as they are. */
export async function vocabularyWith(
  tokenizer: Tokenizer,
  marks: readonly string[],
): Promise<readonly string[]> {
  const tokens = [...await vocabularyTokens(tokenizer)];
  for (const mark of marks) {
    const id = tokenizer.tokenId(mark);
    if (id !== null) tokens[id] = inAlphabet(new TextEncoder().encode(mark));
  }
  return tokens;
}

const inAlphabet = (bytes: Uint8Array): string => Array.from(bytes, (b) => ALPHABET[b]).join("");

async function spell(tokenizer: Tokenizer): Promise<readonly string[]> {
  const tokens: string[] = [];
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    // What is special has no text: it must not come as the characters that name it.
    tokens.push(
      tokenizer.isSpecial(id) ? "" : inAlphabet(tokenizer.tokenBytes(id)),
    );
    if (id % TOKENS_AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  return tokens;
}
