/** The grammar of forced tool calls, in xgrammar's EBNF: the syntax of a model around the schemas of the arguments. */
import type { ToolSyntax } from "./syntax.ts";

export interface CallGrammarOptions {
  /** By place: the name of a tool; its arguments follow the rule that `argumentsRule()` names. */
  readonly names: readonly string[];
  /** More than one call. */
  readonly parallel: boolean;
}

/** Most calls of one answer: small models would never come to an end. */
const MOST_CALLS = 16;
/** White space between two pieces. */
const SPACE = "ws ::= [ \\n]{0,2}";

export const argumentsRule = (tool: number): string => `arguments_${tool}`;
export const schemaRule = "answer";

/** "root": calls and nothing else. */
export function callRules(syntax: ToolSyntax, options: CallGrammarOptions): string[] {
  const begin = syntax.bare ? `(${quoted(syntax.begin)} ws)?` : join(quoted(syntax.begin), "ws");
  return [`root ::= ${repeated(syntax, join(begin, "group"), options)}`, ...groupRules(syntax, options)];
}

/** "root": what follows `begin` of the syntax. */
export const callRulesAfterBegin = (syntax: ToolSyntax, options: CallGrammarOptions): string[] => [
  "root ::= ws group",
  ...groupRules(syntax, options),
];

/** "root": calls, or an answer that follows the rule {@linkcode schemaRule}. */
export const callRulesOrSchema = (syntax: ToolSyntax, options: CallGrammarOptions): string[] =>
  withOther(callRules(syntax, options), schemaRule);

/** "root": calls, or any text that does not begin as a call without its mark does. */
export const callRulesOrText = (syntax: ToolSyntax, options: CallGrammarOptions): string[] => [
  ...withOther(callRules(syntax, options), '"" | [^{ \\n\\t\\r] any*'),
  "any ::= [\\0-\\U0010ffff]",
];

const withOther = ([root, ...rules]: string[], other: string): string[] => [
  `root ::= calls | ${other}`,
  root.replace("root", "calls"),
  ...rules,
];

function groupRules(syntax: ToolSyntax, { names, parallel }: CallGrammarOptions): string[] {
  const { list, separator, end } = syntax;
  const several = separator === undefined || !parallel
    ? "call"
    : `call (${join("ws", quoted(separator), "ws")} call){0,${MOST_CALLS - 1}}`;
  const listed = list ? join(quoted(list.open), "ws", several, "ws", quoted(list.close)) : several;
  return [
    `group ::= ${join(listed, ...end ? ["ws", quoted(end)] : [])}`,
    `call ::= ${names.map((_, tool) => `call_${tool}`).join(" | ")}`,
    ...names.map((name, tool) => `call_${tool} ::= ${callRule(syntax, name, tool)}`),
    SPACE,
  ];
}

const repeated = ({ separator }: ToolSyntax, group: string, { parallel }: CallGrammarOptions): string =>
  separator === undefined && parallel ? `${group} (ws ${group}){0,${MOST_CALLS - 1}}` : group;

function callRule({ call }: ToolSyntax, name: string, tool: number): string {
  const args = argumentsRule(tool);
  if (call.kind === "named") {
    return join(
      quoted(call.before),
      quoted(name),
      quoted(call.between),
      "ws",
      args,
      "ws",
      quoted(call.after),
    );
  }
  const pieces = ["{", '"name"', ":", `"${name}"`, ",", `"${call.argumentsKey}"`, ":"].map(quoted);
  return [...pieces, args, quoted("}")].join(" ws ");
}

const join = (...pieces: string[]): string => pieces.filter((piece) => piece !== "").join(" ");
/** JSON's escapes are among xgrammar's. */
const quoted = (text: string): string => text === "" ? "" : JSON.stringify(text);
