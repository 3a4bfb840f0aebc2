/** `response_format`: what an answer's text must be, as a grammar for the engine. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import type { GrammarRequest } from "../engine/grammar/grammars.ts";
import { vocabularyTokens } from "../engine/grammar/vocabulary.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";

/** Most characters of a schema: an enum of 5,000 words has 50,000. */
const MOST_CHARS = 2 ** 18;
const PARAM = "response_format";
const SCHEMA_PARAM = `${PARAM}.json_schema.schema`;
/** json_object is any object. */
const ANY_OBJECT = JSON.stringify({ type: "object" });

export const responseFormatSchema = z.object({
  type: z.enum(["text", "json_object", "json_schema"]),
  json_schema: z.object({
    name: z.string().min(1).max(64),
    description: z.string().nullish(),
    schema: z.record(z.string(), z.unknown()).nullish().openapi({
      description: "JSON Schema; default: any object",
    }),
    strict: z.boolean().nullish().openapi({
      description: "Objects have the properties that the schema names, and no others; default false",
    }),
  }).nullish(),
}).openapi("ResponseFormat");
type ResponseFormat = z.infer<typeof responseFormatSchema>;

/**
 * null: any text.
 * @throws {OatmillError} invalid_request when the schema is missing or too long
 */
export function grammarOf(
  format: ResponseFormat | null | undefined,
  model: Pick<OpenedModel, "name" | "tokenizer" | "spec">,
): GrammarRequest | null {
  if (!format || format.type === "text") return null;
  const tokenizer = needTokenizer(model), stopIds = stopIdsOf(model);
  return {
    ...sourceOf(format),
    vocabulary: async () => ({ tokens: await vocabularyTokens(tokenizer), stopIds }),
  };
}

function sourceOf({ type, json_schema }: ResponseFormat): Pick<GrammarRequest, "source" | "param"> {
  if (type !== "json_schema") return { source: { schema: ANY_OBJECT, strict: false }, param: PARAM };
  if (!json_schema) {
    const message = `Cannot use "${PARAM}" of type "json_schema" without "json_schema"`;
    throw new OatmillError("invalid_request", message, `${PARAM}.json_schema`);
  }
  const schema = json_schema.schema ? JSON.stringify(json_schema.schema) : ANY_OBJECT;
  if (schema.length > MOST_CHARS) {
    const message =
      `Invalid value of "${SCHEMA_PARAM}": it has ${schema.length} characters, at most ${MOST_CHARS} are allowed`;
    throw new OatmillError("invalid_request", message, SCHEMA_PARAM);
  }
  return { source: { schema, strict: json_schema.strict ?? false }, param: SCHEMA_PARAM };
}
