/** Which grammar an answer with tools follows: forced calls always do, others where a tool is strict. */
import type { GrammarRequest } from "../engine/grammar/grammars.ts";
import type { RulesSource, SchemaSource } from "../engine/grammar/grammar_worker.ts";
import { vocabularyWith } from "../engine/grammar/vocabulary.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";
import {
  argumentsRule,
  callRules,
  callRulesAfterBegin,
  callRulesOrSchema,
  callRulesOrText,
  schemaRule,
} from "../models/tools/call_grammar.ts";
import { marksOf, type ToolSyntax } from "../models/tools/syntax.ts";
import { type FormatPlace, formatSource, type ResponseFormat, schemaSource } from "./response_format.ts";
import { parametersOf, type Tool, type ToolUse } from "./tools.ts";

/**
 * null: any text.
 * @throws {OatmillError} invalid_request when a strict tool's schema cannot be enforced, or one is nested too deeply
 */
export function toolGrammarOf(
  use: ToolUse,
  { syntax, format, model, place }: {
    syntax: ToolSyntax;
    format: ResponseFormat | null;
    model: OpenedModel;
    /** Of the format, for errors; default: `response_format`. */
    place?: FormatPlace;
  },
): GrammarRequest | null {
  const schemas = Object.fromEntries(
    use.callable.map((tool) => [argumentsRule(use.callable.indexOf(tool)), argumentsSource(tool, use)]),
  );
  const answer = use.required ? null : formatSource(format, place);
  const strict = use.callable.some((tool) => tool.function.strict);
  if (!use.required && !answer && !strict) return null;
  const tokenizer = needTokenizer(model), stopIds = stopIdsOf(model);
  const names = use.callable.map((tool) => tool.function.name);
  return {
    source: {
      ...rulesOf(syntax, { names, parallel: use.parallel, required: use.required, answer: answer !== null }),
      schemas: answer ? { ...schemas, [schemaRule]: answer } : schemas,
    },
    param: "tools",
    vocabulary: async () => ({ tokens: await vocabularyWith(tokenizer, marksOf(syntax)), stopIds }),
  };
}

function rulesOf(
  syntax: ToolSyntax,
  o: { names: readonly string[]; parallel: boolean; required: boolean; answer: boolean },
): Pick<RulesSource, "rules" | "trigger"> {
  if (o.required) return { rules: callRules(syntax, o), trigger: null };
  if (o.answer) return { rules: callRulesOrSchema(syntax, o), trigger: null };
  return syntax.bare
    ? { rules: callRulesOrText(syntax, o), trigger: null }
    : { rules: callRulesAfterBegin(syntax, o), trigger: syntax.begin };
}

function argumentsSource(tool: Tool, { tools, parametersAt }: ToolUse): SchemaSource {
  const schema = parametersOf(tool);
  return schemaSource("type" in schema || "$ref" in schema ? schema : { ...schema, type: "object" }, {
    enforce: Boolean(tool.function.strict),
    // Further properties only where the schema says so: a small model would never come to an end.
    closed: "properties" in schema,
    param: parametersAt(tools.indexOf(tool)),
  });
}
