/** `tools` and `tool_choice` of a response: those of chat completions without their inner object. */
import { z } from "@hono/zod-openapi";
import { MOST_TOOLS, readToolUse, toolSchema as chatToolSchema, type ToolUse } from "../tools.ts";

const toolSchema = z.object({
  type: z.literal("function", { error: "only functions can be called" }),
  ...chatToolSchema.shape.function.shape,
}).openapi("ResponseTool");
const choiceSchema = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("function"), name: z.string() }),
]);

export const toolFields = {
  tools: z.array(toolSchema).max(MOST_TOOLS).nullish().openapi({
    description: "Functions that the response may call, for models whose chat template knows tools",
  }),
  tool_choice: choiceSchema.nullish().openapi({
    description: "Default: auto. Required and named calls follow the tool's schema, by a grammar",
  }),
  parallel_tool_calls: z.boolean().nullish().openapi({
    description: "false: at most one call; default true",
  }),
};
const fieldsSchema = z.object(toolFields);
type ToolFields = z.infer<typeof fieldsSchema>;

/** As a response repeats them. */
export const shownToolFields = {
  tools: z.array(toolSchema),
  tool_choice: choiceSchema,
  parallel_tool_calls: z.boolean(),
};

export const shownTools = ({ tools, tool_choice, parallel_tool_calls }: ToolFields) => ({
  tools: tools ?? [],
  tool_choice: tool_choice ?? "auto",
  parallel_tool_calls: parallel_tool_calls ?? true,
});

/**
 * @returns null: nothing may be called
 * @throws {OatmillError} invalid_request when fields contradict each other
 */
export function toolUseOf({ tools, tool_choice: choice, parallel_tool_calls }: ToolFields): ToolUse | null {
  return readToolUse({
    tools: tools?.map(({ type, ...inner }) => ({ type, function: inner })),
    tool_choice: typeof choice === "object" && choice
      ? { type: choice.type, function: { name: choice.name } }
      : choice,
    parallel_tool_calls,
  }, { parametersAt: (tool) => `tools.${tool}.parameters` });
}
