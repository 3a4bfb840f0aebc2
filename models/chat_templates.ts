/** The chat templates of a model: which one a conversation takes, and what it is given, as in transformers. */
import { OatmillError } from "../errors.ts";
import { ChatTemplate } from "./chat_template.ts";
import type { TokenizerFiles } from "./checkpoint.ts";
import { type ToolSyntax, toolSyntaxOf } from "./tools/syntax.ts";

/** A call that a message of the assistant made. */
export interface MessageToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: Readonly<Record<string, unknown>> };
}
export interface ChatMessage {
  readonly role: string;
  readonly content: string | null;
  readonly tool_calls?: readonly MessageToolCall[];
  readonly [field: string]: unknown;
}
export interface RenderOptions {
  readonly addGenerationPrompt?: boolean;
  /** As JSON Schema in OpenAI's form. */
  readonly tools?: readonly unknown[];
  /** More variables of the template. */
  readonly extra?: Readonly<Record<string, unknown>>;
}
/** How a model calls tools; "none": its template reads none, "unknown": in no syntax of the table. */
export type ToolSupport = ToolSyntax | "none" | "unknown";

/** What a probe of a template looks for. */
const PROBE = "probe_value";

export class ChatTemplates {
  readonly #plain: ChatTemplate | null;
  readonly #withTools: ChatTemplate | null;
  readonly toolSupport: ToolSupport;
  /** Templates that want a call's arguments as JSON text; found out at the first call. */
  readonly #textual = new Map<ChatTemplate, boolean>();

  /**
   * @param tokens `bos_token`, `eos_token`, …: variables of the templates
   * @throws {OatmillError} invalid_chat_template when one does not parse
   */
  constructor(
    { chatTemplate, toolTemplate }: Pick<TokenizerFiles, "chatTemplate" | "toolTemplate">,
    readonly tokens: Readonly<Record<string, string>>,
  ) {
    const source = toolTemplate ?? chatTemplate;
    this.#plain = chatTemplate === null ? null : new ChatTemplate(chatTemplate);
    this.#withTools = toolTemplate ? new ChatTemplate(toolTemplate) : this.#plain;
    const reads = source !== null && this.#withTools!.reads("tools");
    this.toolSupport = reads ? toolSyntaxOf(source) ?? "unknown" : "none";
  }

  /** There is one. */
  get some(): boolean {
    return this.#plain !== null;
  }

  /** @throws {OatmillError} invalid_chat_template (none, fails, or costs too much) */
  render(messages: readonly ChatMessage[], o: RenderOptions = {}): string {
    const template = o.tools ? this.#withTools : this.#plain;
    if (!template) {
      throw new OatmillError(
        "invalid_chat_template",
        "The model has no chat template; use a completion instead",
      );
    }
    const called = messages.some((m) => m.tool_calls);
    return this.#render(template, called && this.#wantsText(template) ? messages.map(withText) : messages, o);
  }

  #render(template: ChatTemplate, messages: readonly unknown[], o: RenderOptions): string {
    return template.render({
      ...this.tokens,
      ...o.extra,
      messages,
      tools: o.tools ?? null,
      documents: null,
      add_generation_prompt: o.addGenerationPrompt ?? false,
    });
  }

  /** Most templates write the arguments by `tojson`; some put them between two strings. */
  #wantsText(template: ChatTemplate): boolean {
    let textual = this.#textual.get(template);
    if (textual === undefined) {
      const shows = (messages: readonly unknown[]) => {
        try {
          return this.#render(template, messages, {}).includes(PROBE);
        } catch {
          return false;
        }
      };
      textual = !shows(PROBE_CHAT) && shows(PROBE_CHAT.map(withText));
      this.#textual.set(template, textual);
    }
    return textual;
  }
}

const PROBE_CHAT: readonly ChatMessage[] = [
  { role: "user", content: "Hi" },
  {
    role: "assistant",
    content: "",
    tool_calls: [{
      id: "abcdefghi", // Mistral's templates refuse ids of another length
      type: "function",
      function: { name: "probe", arguments: { value: PROBE } },
    }],
  },
];

const withText = (message: ChatMessage): object => ({
  ...message,
  ...message.tool_calls
    ? {
      tool_calls: message.tool_calls.map((call) => ({
        ...call,
        function: { ...call.function, arguments: JSON.stringify(call.function.arguments) },
      })),
    }
    : {},
});
