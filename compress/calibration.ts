/** Token sequences for calibration and held-out evaluation, all of one length: from files or from the model itself. */
import { OatmillError } from "../errors.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { type Document, readDocuments, readText } from "./calibration_source.ts";
import { type Random, seededRandom, shuffled } from "./random.ts";

export interface SequenceRequest {
  readonly sequences: number;
  readonly length: number;
  readonly seed: number;
}

export interface TextReader {
  /** Asked for when there is text. @throws {OatmillError} the model has none */
  readonly tokenizer: () => Tokenizer;
  /** Token ids are below it. */
  readonly vocabSize: number;
}

/**
 * Sequences from a file or a dataset folder (see {@linkcode readDocuments}). Documents give one random window each when
 * they are long enough, then the short ones joined, then what else is in the long ones; a running text is cut into windows, in
 * random order. Fewer come back when the text is short.
 *
 * @throws {OatmillError} invalid_recipe when it cannot be read or has no whole sequence, unsupported_format for images
 */
export async function textSequences(
  path: string,
  { tokenizer, vocabSize }: TextReader,
  { sequences, length, seed }: SequenceRequest,
): Promise<Int32Array[]> {
  const { documents, running } = await readDocuments(path);
  const random = seededRandom(seed);
  let encode: ((text: string) => Tokens) | null = null; // of token ids alone a model needs no tokenizer
  const read = (document: Document): Tokens =>
    typeof document === "string"
      ? (encode ??= textTokens(tokenizer()))(document)
      : { ids: knownIds(document, { path, vocabSize }), prefix: NO_PREFIX };
  const found = running
    ? shuffled(documents.flatMap((document) => cut(read(document), length)), random).slice(0, sequences)
    : documentWindows(documents, { read, random, sequences, length });
  return someOf(found, { doing: "calibrate", path, length, param: "calibration.text" });
}

/** @throws {OatmillError} invalid_recipe: an id is not in the vocabulary */
function knownIds(
  ids: readonly number[],
  { path, vocabSize }: { readonly path: string; readonly vocabSize: number },
): readonly number[] {
  const unknown = ids.find((id) => id >= vocabSize);
  if (unknown === undefined) return ids;
  throw new OatmillError(
    "invalid_recipe",
    `Cannot calibrate on "${path}": token id ${unknown} is not below the vocabulary's ${vocabSize}`,
    "calibration.text",
  );
}

/**
 * The first `tokens` tokens of a text in consecutive windows of `length`: the usual perplexity protocol.
 *
 * @throws {OatmillError} invalid_recipe when the file cannot be read or has no whole window
 */
export async function evaluationSequences(
  path: string,
  tokenizer: Tokenizer,
  { tokens, length }: { readonly tokens: number; readonly length: number },
): Promise<Int32Array[]> {
  const { text } = await readText(path, "evaluate.text");
  const start = text.slice(0, tokens * 16); // no tokenizer in use has 16 characters a token on average
  const all = cut(textTokens(tokenizer)(start), length);
  const found = all.slice(0, Math.max(1, Math.floor(tokens / length)));
  return someOf(found, { doing: "evaluate", path, length, param: "evaluate.text" });
}

/** @throws {OatmillError} invalid_recipe when a text gave no sequence */
function someOf(
  found: Int32Array[],
  { doing, path, length, param }: { doing: string; path: string; length: number; param: string },
): Int32Array[] {
  if (found.length > 0) return found;
  throw new OatmillError(
    "invalid_recipe",
    `Cannot ${doing} on "${path}": the text is shorter than one sequence of ${length} tokens`,
    param,
  );
}

/** Tokens of one document, and what stands before each sequence of them. */
interface Tokens {
  readonly ids: readonly number[];
  readonly prefix: readonly number[];
}

const NO_PREFIX: readonly number[] = [];

/** Text as tokens; each sequence begins with BOS where the tokenizer would put one. */
function textTokens(tokenizer: Tokenizer): (text: string) => Tokens {
  const prefix = tokenizer.encode("").slice(0, 1);
  return (text) => ({ ids: tokenizer.encode(text, { addSpecialTokens: false }), prefix });
}

/** The sequence of `length` tokens from `start` on. */
const windowAt = ({ ids, prefix }: Tokens, start: number, length: number): Int32Array =>
  Int32Array.from([...prefix, ...ids.slice(start, start + length - prefix.length)]);

/** All whole sequences of `length`, one after the other. */
function cut(tokens: Tokens, length: number): Int32Array[] {
  const size = length - tokens.prefix.length;
  return Array.from(
    { length: Math.floor(tokens.ids.length / size) },
    (_, i) => windowAt(tokens, i * size, length),
  );
}

interface DocumentOptions {
  readonly read: (document: Document) => Tokens;
  readonly random: Random;
  readonly sequences: number;
  readonly length: number;
}

function documentWindows(
  documents: readonly Document[],
  { read, random, sequences, length }: DocumentOptions,
): Int32Array[] {
  const found: Int32Array[] = [];
  const short = new Map<readonly number[], number[]>(); // by prefix: text and ids are not joined
  const further: Int32Array[] = [];
  for (const document of shuffled(documents, random)) {
    if (found.length === sequences) return found;
    const tokens = read(document), { ids, prefix } = tokens;
    const size = length - prefix.length, spare = ids.length - size;
    if (spare < 0) {
      const others = short.get(prefix) ?? [];
      for (const id of ids) others.push(id);
      short.set(prefix, others);
      continue;
    }
    const start = spare === 0 ? 0 : random.below(spare);
    found.push(windowAt(tokens, start, length));
    for (const part of [ids.slice(0, start), ids.slice(start + size)]) {
      further.push(...cut({ ids: part, prefix }, length));
    }
  }
  const joined = [...short].flatMap(([prefix, ids]) => cut({ ids, prefix }, length));
  return [...found, ...joined, ...shuffled(further, random)].slice(0, sequences);
}
