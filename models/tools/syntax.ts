/**
 * How models write tool calls: one row for each syntax, from which both the reader of answers (call_parser.ts) and the
 * grammar of forced ones (call_grammar.ts) are made. A model's syntax is what its chat template tells it to write.
 */

/** A call as one JSON object: `{"name": …, "arguments": {…}}`. */
export interface ObjectCall {
  readonly kind: "object";
  /** The key of the arguments as the model writes it. */
  readonly argumentsKey: "arguments" | "parameters";
}
/** A call as a name and the arguments' JSON between marks. */
export interface NamedCall {
  readonly kind: "named";
  readonly before: string;
  readonly between: string;
  readonly after: string;
}

/** A group of calls: begin open call separator call … close end. White space may stand between any two of these. */
export interface ToolSyntax {
  readonly name: string;
  readonly begin: string;
  /** Calls stand in brackets; a single one is also read without them. */
  readonly list?: { readonly open: string; readonly close: string };
  readonly call: ObjectCall | NamedCall;
  /** Between the calls of one group; absent: a group is one call, and further ones are groups of their own. */
  readonly separator?: string;
  readonly end: string;
  /** An answer may also begin with a call, `begin` left out. */
  readonly bare?: true;
  /** Of an answer's calls: OpenAI's form, or the nine letters and digits that Mistral's templates insist on. */
  readonly ids: "openai" | "nine";
}

const object = (argumentsKey: ObjectCall["argumentsKey"]): ObjectCall => ({ kind: "object", argumentsKey });
const LIST = { open: "[", close: "]" };
const DEEPSEEK = {
  begin: "<｜tool▁calls▁begin｜>",
  separator: "",
  end: "<｜tool▁calls▁end｜>",
  ids: "openai",
} as const;

interface Row extends ToolSyntax {
  /** What only templates of this syntax say; the first row that matches is taken. */
  readonly said: RegExp;
}

export const TOOL_SYNTAXES: readonly Row[] = [
  {
    ...DEEPSEEK,
    name: "deepseek_v3",
    said: /<｜tool▁calls▁begin｜>[^]*```json/,
    call: {
      kind: "named",
      before: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
      between: "\n```json\n",
      after: "\n```<｜tool▁call▁end｜>",
    },
  },
  {
    ...DEEPSEEK,
    name: "deepseek_v3.1",
    said: /<｜tool▁calls▁begin｜>/,
    call: {
      kind: "named",
      before: "<｜tool▁call▁begin｜>",
      between: "<｜tool▁sep｜>",
      after: "<｜tool▁call▁end｜>",
    },
  },
  {
    name: "mistral_args",
    said: /\[TOOL_CALLS\][^]*\[ARGS\]/,
    begin: "[TOOL_CALLS]",
    call: { kind: "named", before: "", between: "[ARGS]", after: "" },
    end: "",
    ids: "nine",
  },
  {
    name: "mistral",
    said: /\[TOOL_CALLS\]/,
    begin: "[TOOL_CALLS]",
    list: LIST,
    call: object("arguments"),
    separator: ",",
    end: "",
    ids: "nine",
  },
  {
    name: "functools",
    said: /functools\[/,
    begin: "functools",
    list: LIST,
    call: object("arguments"),
    separator: ",",
    end: "",
    ids: "openai",
  },
  {
    name: "tool_call_object",
    said: /<\|tool_call\|>\s*\{/,
    begin: "<|tool_call|>",
    call: object("arguments"),
    end: "<|/tool_call|>",
    ids: "openai",
  },
  {
    name: "granite",
    said: /<\|tool_call\|>/,
    begin: "<|tool_call|>",
    list: LIST,
    call: object("arguments"),
    separator: ",",
    end: "",
    ids: "openai",
  },
  {
    name: "hermes",
    // Not those that write each argument as an element: <function=name><parameter=key>…
    said: /^(?![^]*<(?:function|arg_key)[=>])[^]*<tool_call>/,
    begin: "<tool_call>",
    call: object("arguments"),
    end: "</tool_call>",
    ids: "openai",
  },
  {
    name: "llama3",
    said: /<\|python_tag\|>|\{"name": function name, "parameters":/,
    begin: "<|python_tag|>",
    call: object("parameters"),
    separator: ";",
    end: "",
    bare: true,
    ids: "openai",
  },
];

/** @returns null when the template names no syntax of the table */
export const toolSyntaxOf = (template: string): ToolSyntax | null =>
  TOOL_SYNTAXES.find(({ said }) => said.test(template)) ?? null;

/** What stands in a syntax as one piece, as tokenizers may have a token for it. */
export function marksOf({ begin, end, call }: ToolSyntax): string[] {
  const inCall = call.kind === "named" ? [call.before, call.between, call.after] : [];
  const pieces = inCall.flatMap((text) => text.match(/<｜[^｜]*｜>|\[[A-Z_]+\]/g) ?? []);
  return [begin, end, ...pieces].filter((mark) => mark !== "");
}
