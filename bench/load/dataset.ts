/** Prompts from a file: .jsonl, .json (as ShareGPT's), .txt with one prompt a line. */
import { OatmillError } from "../../errors.ts";
import type { ChatTurn, LoadRequest } from "./client.ts";

export interface DatasetRow {
  readonly prompt: LoadRequest["prompt"];
  /** Where the row says how long its answer is. */
  readonly outputTokens: number | null;
}

/** Larger files do not belong in memory. */
const MOST_BYTES = 2 ** 30;
/** Of English text, about, in today's vocabularies: for answers that are given as text. */
const CHARACTERS_PER_TOKEN = 4;

/**
 * @param path its ending says what it is
 * @throws {OatmillError} invalid_request, naming the line or row
 */
export async function readDataset(path: string): Promise<DatasetRow[]> {
  const { size } = await Deno.stat(path);
  if (size > MOST_BYTES) {
    throw new OatmillError(
      "too_large",
      `"${path}" has ${size} bytes, must have at most ${MOST_BYTES}: cut it`,
    );
  }
  return parseDataset(await Deno.readTextFile(path), path);
}

/** @throws {OatmillError} invalid_request */
export function parseDataset(text: string, path: string): DatasetRow[] {
  const ending = /\.[^./]*$/.exec(path)?.[0].toLowerCase() ?? "";
  const read = READERS[ending];
  if (!read) {
    const known = Object.keys(READERS).join(", ");
    throw new OatmillError(
      "invalid_request",
      `Cannot read "${path}": its name must end with one of ${known}`,
    );
  }
  const rows = read(text, path);
  if (rows.length === 0) throw new OatmillError("invalid_request", `"${path}" holds no prompts`);
  return rows;
}

const lines = (text: string) =>
  text.split(/\r?\n/).map((line, i) => [line.trim(), i + 1] as const).filter(([line]) => line !== "");

const READERS: Record<string, (text: string, path: string) => DatasetRow[]> = {
  ".txt": (text) => lines(text).map(([prompt]) => ({ prompt, outputTokens: null })),
  ".jsonl": (text, path) =>
    lines(text).map(([line, number]) =>
      row(json(line, `${path}, line ${number}`), `${path}, line ${number}`)
    ),
  ".json": (text, path) => {
    const rows = json(text, path);
    if (!Array.isArray(rows)) {
      throw new OatmillError("invalid_request", `"${path}" must hold an array of rows`);
    }
    return rows.map((value, i) => row(value, `${path}, row ${i + 1}`));
  },
};

function json(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new OatmillError("invalid_request", `${where} is no JSON: ${(cause as Error).message}`, null, {
      cause,
    });
  }
}

// deno-lint-ignore no-explicit-any -- rows of any dataset: looked into by name, checked by type
type Json = any;

/** Where an answer's length or text stands, by the names that datasets use. */
const OUTPUT_TOKENS = ["output_tokens", "max_tokens", "completion_tokens", "output_len"];
const OUTPUT_TEXT = ["completion", "output", "response", "answer"];

function row(value: Json, where: string): DatasetRow {
  if (typeof value === "string" && value !== "") return { prompt: value, outputTokens: null };
  const turns = chatTurns(value?.messages ?? value?.conversations ?? value?.conversation);
  const asked = turns.findLastIndex((turn) => turn.role !== "assistant");
  const prompt = turns.length > 0 ? turns.slice(0, asked + 1) : plainPrompt(value);
  if (!prompt || prompt.length === 0) {
    throw new OatmillError(
      "invalid_request",
      `${where} has no prompt: it must have "prompt", "text", "messages" or "conversations"`,
    );
  }
  return { prompt, outputTokens: outputTokens(value, turns[asked + 1]?.content) };
}

function plainPrompt(value: Json): string | readonly number[] | null {
  const prompt = value?.prompt ?? value?.text ?? value?.instruction;
  if (typeof prompt === "string") return value.input ? `${prompt}\n${value.input}` : prompt;
  return Array.isArray(prompt) && prompt.every(Number.isSafeInteger) ? prompt : null;
}

/** ShareGPT's names of who speaks. */
const ROLES: Readonly<Record<string, string>> = {
  human: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
};

function chatTurns(list: Json): ChatTurn[] {
  if (!Array.isArray(list)) return [];
  const turns = list.map((turn) => {
    const role = turn?.role ?? turn?.from, content = turn?.content ?? turn?.value;
    return { role: ROLES[role] ?? role, content };
  });
  return turns.every((t) => typeof t.role === "string" && typeof t.content === "string") ? turns : [];
}

function outputTokens(value: Json, answer: string | undefined): number | null {
  const count = OUTPUT_TOKENS.map((key) => value[key]).find((n) => Number.isSafeInteger(n) && n > 0);
  const text = answer ?? OUTPUT_TEXT.map((key) => value[key]).find((t) => typeof t === "string" && t !== "");
  return count ?? (text ? Math.max(1, Math.ceil(text.length / CHARACTERS_PER_TOKEN)) : null);
}
