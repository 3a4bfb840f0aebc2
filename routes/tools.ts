/** `tools`, `tool_choice` and what goes with them: the request's fields, and what its answers may call. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { needTokenizer, type OpenedModel } from "../engine/open_model.ts";
import type { CallsOptions } from "./answer_reader.ts";
import { TOOL_SYNTAXES, type ToolSyntax } from "../models/tools/syntax.ts";

/** OpenAI's limit. */
export const MOST_TOOLS = 128;
/** All tools together, as JSON: they stand in the prompt. */
const MOST_CHARS = 2 ** 18;

const nameSchema = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, "expected 1 to 64 of a-z, A-Z, 0-9, _ and -");
export const toolSchema = z.object({
  type: z.literal("function"),
  function: z.object({
    name: nameSchema,
    description: z.string().nullish(),
    parameters: z.record(z.string(), z.unknown()).nullish().openapi({
      description: "JSON Schema of the arguments, an object; default: no arguments",
    }),
    strict: z.boolean().nullish().openapi({
      description: "Calls follow the schema, by a grammar; one that no grammar can enforce is refused",
    }),
  }),
}).openapi("ChatTool");
export type Tool = z.infer<typeof toolSchema>;

const refused = (instead: string) =>
  z.unknown().optional().openapi({ description: `Refused: the older form of \`${instead}\`` });

export const toolFields = {
  tools: z.array(toolSchema).max(MOST_TOOLS).nullish().openapi({
    description: "Functions that the answer may call, for models whose chat template knows tools",
  }),
  tool_choice: z.union([
    z.enum(["none", "auto", "required"]),
    z.object({ type: z.literal("function"), function: z.object({ name: z.string() }) }),
  ]).nullish().openapi({
    description: "Default: auto. Required and named calls follow the tool's schema, by a grammar",
  }),
  parallel_tool_calls: z.boolean().nullish().openapi({
    description: "false: at most one call; default true",
  }),
  functions: refused("tools"),
  function_call: refused("tool_choice"),
};
const fieldsSchema = z.object(toolFields);
export type ToolFields = z.infer<typeof fieldsSchema>;

/** What an answer may call. */
export interface ToolUse {
  /** All that the prompt shows. */
  readonly tools: readonly Tool[];
  /** Those that may be called. */
  readonly callable: readonly Tool[];
  /** There must be a call. */
  readonly required: boolean;
  /** There may be several. */
  readonly parallel: boolean;
  /** The request's field with a tool's schema of arguments, for errors. */
  readonly parametersAt: (tool: number) => string;
}

const CHAT_PLACES: Pick<ToolUse, "parametersAt"> = {
  parametersAt: (tool) => `tools.${tool}.function.parameters`,
};

/**
 * @returns null: nothing may be called
 * @throws {OatmillError} invalid_request when fields contradict each other
 */
export function readToolUse(body: ToolFields, { parametersAt } = CHAT_PLACES): ToolUse | null {
  checkTools(body, { parametersAt });
  const { tool_choice: choice, parallel_tool_calls: parallel } = body;
  const tools = body.tools ?? [];
  if (tools.length === 0 || choice === "none") return null;
  const named = typeof choice === "object" && choice ? choice.function.name : null;
  return {
    tools,
    callable: named === null ? tools : tools.filter((t) => t.function.name === named),
    required: named !== null || choice === "required",
    parallel: named === null && parallel !== false,
    parametersAt,
  };
}

function checkTools(
  { tools, tool_choice: choice, ...older }: ToolFields,
  { parametersAt }: Pick<ToolUse, "parametersAt">,
): void {
  const refuse = (param: string, message: string) => {
    throw new OatmillError("invalid_request", message, param);
  };
  for (const [field, instead] of [["functions", "tools"], ["function_call", "tool_choice"]] as const) {
    if (older[field] !== undefined && older[field] !== null) {
      refuse(field, `Cannot use "${field}": it is the older form of "${instead}", which is supported`);
    }
  }
  const names = new Set(tools?.map((t) => t.function.name));
  if (names.size < (tools ?? []).length) refuse("tools", 'Invalid value of "tools": two have the same name');
  const chars = JSON.stringify(tools ?? []).length;
  if (chars > MOST_CHARS) {
    refuse("tools", `Cannot use "tools": they have ${chars} characters, at most ${MOST_CHARS} are allowed`);
  }
  if (choice === "required" && names.size === 0) {
    refuse("tool_choice", 'Cannot require a call without "tools"');
  }
  if (typeof choice === "object" && choice && !names.has(choice.function.name)) {
    refuse("tool_choice", `Cannot call "${choice.function.name}": "tools" does not have it`);
  }
  tools?.forEach(({ function: { parameters } }, i) => {
    if (parameters?.type === undefined || parameters.type === "object") return;
    const param = `${parametersAt(i)}.type`;
    refuse(param, `Invalid value of "${param}": arguments are an object, so it must be "object"`);
  });
}

/** A function without `parameters` takes no arguments. */
export const parametersOf = ({ function: { parameters } }: Tool): Record<string, unknown> =>
  parameters ?? { type: "object", properties: {} };

/** As chat templates get them: OpenAI's form, without what is meant for the server. */
export const templateTools = ({ tools }: ToolUse): object[] =>
  tools.map((tool) => ({
    type: tool.type,
    function: {
      name: tool.function.name,
      ...typeof tool.function.description === "string" ? { description: tool.function.description } : {},
      parameters: parametersOf(tool),
    },
  }));

/** @throws {OatmillError} invalid_request when the model knows no tools, or writes calls in an unknown syntax */
export function needToolSyntax(model: OpenedModel): ToolSyntax {
  const { toolSupport } = needTokenizer(model);
  if (typeof toolSupport === "object") return toolSupport;
  const why = toolSupport === "none"
    ? "its chat template does not read them"
    : `its chat template asks for calls in a syntax that is not among ${
      TOOL_SYNTAXES.map((s) => s.name).join(", ")
    }`;
  throw new OatmillError(
    "invalid_request",
    `Model "${model.name}" cannot call tools: ${why}. Leave "tools" out, or use a model made for tools`,
    "tools",
  );
}

/** How its calls are read. @throws {OatmillError} as {@linkcode needToolSyntax} */
export const callsOf = (use: ToolUse, model: OpenedModel): CallsOptions => ({
  syntax: needToolSyntax(model),
  names: use.callable.map((tool) => tool.function.name),
  parallel: use.parallel,
});
