/** `chat`: a conversation in the terminal. */
import { createInterface } from "node:readline/promises";
import process from "node:process";
import { needTokenizer, openModel, type OpenModelOptions, stopIdsOf } from "../engine/open_model.ts";
import { generateText } from "../engine/text.ts";
import { GREEDY } from "../engine/types.ts";
import { OatmillError } from "../errors.ts";
import type { ChatMessage, Tokenizer } from "../models/tokenizer.ts";
import { throughAdapter } from "./adapter.ts";
import { note, write } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface ChatOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly autotune?: boolean;
  /** PEFT's folder. */
  readonly adapter?: string;
  readonly system?: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly seed?: number;
}

export async function chat(path: string, options: ChatOptions): Promise<void> {
  const opened = await openModel(path, {
    values: options.values,
    threads: options.threads,
    tuning: tuningOf(options),
  });
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    terminal: Deno.stdin.isTerminal(),
  });
  try {
    const model = await throughAdapter(opened, options.adapter);
    const tokenizer = needTokenizer(model);
    note(
      tokenizer.hasChatTemplate
        ? "Ask away; an empty line or Ctrl-D ends."
        : "This model has no chat template: it continues your text. An empty line or Ctrl-D ends.",
    );
    const messages: ChatMessage[] = options.system ? [{ role: "system", content: options.system }] : [];
    let open = true; // a pipe may end before its lines are answered
    lines.once("close", () => open = false);
    lines.setPrompt("> ");
    lines.prompt();
    for await (const line of lines) {
      if (line.trim() === "") break;
      messages.push({ role: "user", content: line });
      const promptIds = promptOf(tokenizer, messages);
      const left = model.engine.contextLength - promptIds.length;
      if (left < 1) {
        throw new OatmillError("context_length_exceeded", "The conversation fills the model's context");
      }
      let answer = "";
      const sampling = {
        ...GREEDY,
        temperature: options.temperature,
        topP: 0.95,
        seed: options.seed ?? Date.now() >>> 0,
      };
      const maxTokens = Math.min(left, options.maxTokens);
      const request = { promptIds, maxTokens, stopIds: stopIdsOf(model), stop: [], sampling, logprobs: null };
      for await (const event of generateText(model.engine, tokenizer, request)) {
        if (event.type === "prompt") continue;
        answer += event.text;
        write(event.text);
        if (event.type === "end") note(`\n(${speed(event.timings)})`);
      }
      messages.push({ role: "assistant", content: answer });
      if (open) lines.prompt();
    }
  } finally {
    lines.close();
    await opened.engine.close();
  }
}

function promptOf(tokenizer: Tokenizer, messages: ChatMessage[]): number[] {
  if (!tokenizer.hasChatTemplate) return tokenizer.encode(messages.at(-1)!.content ?? "");
  return tokenizer.encode(tokenizer.renderChat(messages, { addGenerationPrompt: true }), {
    addSpecialTokens: false,
  });
}

const speed = (t: { completionTokens: number; decodeMs: number; prefillMs: number }): string =>
  `${t.completionTokens} tokens, ${
    (Math.max(0, t.completionTokens - 1) * 1000 / Math.max(1, t.decodeMs)).toFixed(1)
  } tokens/s`;
