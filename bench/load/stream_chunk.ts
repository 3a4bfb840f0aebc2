/** What one event of a completion's stream says, for a client that only measures. */

export interface StreamChunk {
  /** It carries a piece of the answer. */
  readonly text: boolean;
  readonly finish: string | null;
  readonly usage: {
    readonly input: number;
    /** Of the input: what the server had from another prompt; 0 where it does not say. */
    readonly cached: number;
    readonly output: number;
  } | null;
  readonly error: string | null;
}

// deno-lint-ignore no-explicit-any -- JSON of any server: looked into with ?. and checked by typeof
type Json = any;

/** @returns null for what is no JSON object */
export function readChunk(data: string): StreamChunk | null {
  let chunk: Json;
  try {
    chunk = JSON.parse(data);
  } catch {
    return null;
  }
  if (typeof chunk !== "object" || chunk === null) return null;
  const choice = chunk.choices?.[0], { usage } = chunk;
  return {
    text: hasText(choice),
    finish: choice?.finish_reason ?? null,
    usage: Number.isFinite(usage?.completion_tokens)
      ? {
        input: Number(usage.prompt_tokens) || 0,
        cached: Number(usage.prompt_tokens_details?.cached_tokens) || 0,
        output: usage.completion_tokens,
      }
      : null,
    error: chunk.error ? String(chunk.error.message ?? JSON.stringify(chunk.error)) : null,
  };
}

/** Names of what a chat's delta may carry: reasoning models stream their thoughts by either of two names. */
const DELTA_TEXT = ["content", "reasoning_content", "reasoning", "refusal"] as const;

function hasText(choice: Json): boolean {
  if (typeof choice !== "object" || choice === null) return false;
  if (typeof choice.text === "string") return choice.text !== "";
  const delta = choice.delta ?? {};
  return DELTA_TEXT.some((key) => typeof delta[key] === "string" && delta[key] !== "") ||
    delta.tool_calls?.length > 0;
}
