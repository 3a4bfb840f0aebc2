/** Token sequences for calibration and held-out evaluation, all of one length: from a file or from the model itself. */
import { unixLines } from "./lines.ts";
import { OatmillError } from "../errors.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { type Random, seededRandom, shuffled } from "./random.ts";

/** Draws `sequences` sequences of `length` tokens from the model at temperature 1. */
export type Sampler = (sequences: number, length: number, seed: number) => Promise<Int32Array[]>;

export interface SequenceRequest {
  readonly sequences: number;
  readonly length: number;
  readonly seed: number;
}

/** A file longer than this is read in part: enough for 4096 sequences of 2048 tokens. */
const MAX_TEXT_BYTES = 64 << 20;

/**
 * Sequences from a text: a .jsonl file of documents (`{"text": ...}` or strings) gives one random window of each
 * document that is long enough, then the short ones joined; any other file is cut into windows, in random order.
 * Fewer come back when the text is short.
 *
 * @throws {OatmillError} invalid_recipe when the file cannot be read or has no whole sequence
 */
export async function textSequences(
  path: string,
  tokenizer: Tokenizer,
  { sequences, length, seed }: SequenceRequest,
): Promise<Int32Array[]> {
  const { text, cut } = await readText(path, "calibration.text");
  const random = seededRandom(seed);
  const window = new Windows(tokenizer, length);
  const found = path.endsWith(".jsonl")
    ? documentWindows(parseDocuments(text, { path, cut }), window, { random, sequences })
    : shuffled(window.cut(window.encode(text)), random).slice(0, sequences);
  return someOf(found, { doing: "calibrate", path, length, param: "calibration.text" });
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
  const window = new Windows(tokenizer, length);
  const { text } = await readText(path, "evaluate.text");
  const ids = window.encode(text.slice(0, tokens * 16)); // no tokenizer in use has 16 characters a token on average
  const found = window.cut(ids).slice(0, Math.max(1, Math.floor(tokens / length)));
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

/** Cuts token ids into sequences; each begins with BOS where the tokenizer would put one. */
class Windows {
  readonly #prefix: readonly number[];

  constructor(readonly tokenizer: Tokenizer, readonly length: number) {
    this.#prefix = tokenizer.encode("").slice(0, 1);
  }

  /** Tokens of a text that one sequence holds. */
  get size(): number {
    return this.length - this.#prefix.length;
  }

  encode(text: string): number[] {
    return this.tokenizer.encode(text, { addSpecialTokens: false });
  }

  at(ids: readonly number[], start: number): Int32Array {
    return Int32Array.from([...this.#prefix, ...ids.slice(start, start + this.size)]);
  }

  cut(ids: readonly number[]): Int32Array[] {
    return Array.from({ length: Math.floor(ids.length / this.size) }, (_, i) => this.at(ids, i * this.size));
  }
}

function documentWindows(
  documents: readonly string[],
  window: Windows,
  { random, sequences }: { readonly random: Random; readonly sequences: number },
): Int32Array[] {
  const found: Int32Array[] = [], short: number[] = [];
  for (const text of shuffled(documents, random)) {
    if (found.length === sequences) return found;
    const ids = window.encode(text);
    if (ids.length > window.size) found.push(window.at(ids, random.below(ids.length - window.size)));
    else for (const id of ids) short.push(id);
  }
  return [...found, ...window.cut(short)].slice(0, sequences);
}

function parseDocuments(
  text: string,
  { path, cut }: { readonly path: string; readonly cut: boolean },
): string[] {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.flatMap((line, i) => {
    try {
      const value: unknown = JSON.parse(line);
      if (typeof value === "string") return [value];
      const document = (value as { text?: unknown } | null)?.text;
      if (typeof document === "string") return [document];
    } catch (cause) {
      if (cut && i === lines.length - 1) return [];
      throw new OatmillError(
        "invalid_recipe",
        `Cannot read "${path}": line ${i + 1} is not JSON`,
        "calibration.text",
        {
          cause,
        },
      );
    }
    throw new OatmillError(
      "invalid_recipe",
      `Cannot read "${path}": line ${i + 1} has no "text" string`,
      "calibration.text",
    );
  });
}

/** The text, and whether {@linkcode MAX_TEXT_BYTES} may have cut it off. */
async function readText(path: string, param: string): Promise<{ text: string; cut: boolean }> {
  try {
    using file = await Deno.open(path);
    const parts: Uint8Array[] = [];
    let size = 0;
    while (size < MAX_TEXT_BYTES) {
      const buffer = new Uint8Array(1 << 20);
      const n = await file.read(buffer);
      if (n === null) break;
      parts.push(buffer.subarray(0, n));
      size += n;
    }
    const text = unixLines(await new Blob(parts as Uint8Array<ArrayBuffer>[]).text());
    return { text, cut: size >= MAX_TEXT_BYTES };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OatmillError("invalid_recipe", `Cannot read text "${path}": ${reason}`, param, { cause });
  }
}
