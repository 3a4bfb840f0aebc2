/** The text of one answer as clients get it: content, and the calls of tools that it makes. */
import { type AnswerPart, ToolCallParser } from "../models/tools/call_parser.ts";
import type { ToolSyntax } from "../models/tools/syntax.ts";

/** As in a chunk: a call's id and name come once, its arguments in pieces. */
export interface ToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly type?: "function";
  readonly function: { readonly name?: string; readonly arguments: string };
}
export interface AnswerDelta {
  readonly content: string;
  readonly calls: readonly ToolCallDelta[];
}
export interface CallsOptions {
  readonly syntax: ToolSyntax;
  /** Of the tools that may be called. */
  readonly names: readonly string[];
  /** false: calls after the first are dropped. */
  readonly parallel: boolean;
}

export class AnswerReader {
  readonly #parser: ToolCallParser | null;

  /** @param options null: all text is content */
  constructor(readonly options: CallsOptions | null) {
    this.#parser = options && new ToolCallParser(options.syntax, options.names);
  }

  get hasCalls(): boolean {
    return this.#parser !== null && this.#parser.calls > 0;
  }

  /** @param ended nothing follows: what was held back comes too */
  read(text: string, ended: boolean): AnswerDelta {
    if (!this.#parser) return { content: text, calls: [] };
    const parts = [...this.#parser.push(text), ...ended ? this.#parser.end() : []];
    const content = parts.map((part) => part.type === "content" ? part.text : "").join("");
    return { content, calls: this.#calls(parts) };
  }

  #calls(parts: readonly AnswerPart[]): ToolCallDelta[] {
    const { syntax, parallel } = this.options!;
    const calls: ToolCallDelta[] = [];
    for (const part of parts) {
      if (part.type === "content" || (part.index > 0 && !parallel)) continue;
      const { index } = part;
      if (part.type === "call") {
        const id = NEW_ID[syntax.ids]();
        calls.push({ index, id, type: "function", function: { name: part.name, arguments: "" } });
        continue;
      }
      const last = calls.at(-1);
      if (last?.index === index) calls[calls.length - 1] = withArguments(last, part.text);
      else calls.push({ index, function: { arguments: part.text } });
    }
    return calls;
  }
}

export const withArguments = <T extends ToolCallDelta>(call: T, text: string): T => ({
  ...call,
  function: { ...call.function, arguments: call.function.arguments + text },
});

const NEW_ID: Readonly<Record<ToolSyntax["ids"], () => string>> = {
  openai: () => `call_${crypto.randomUUID().replaceAll("-", "").slice(0, 24)}`,
  nine: () => crypto.randomUUID().replaceAll("-", "").slice(0, 9),
};
