/** `response_format`: what an answer's text must be, as a grammar for the engine. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import type { SchemaSource } from "../engine/grammar/grammar_worker.ts";
import type { GrammarRequest } from "../engine/grammar/grammars.ts";
import { type JsonSchema, prepareSchema } from "../engine/grammar/json_schema.ts";
import { vocabularyTokens } from "../engine/grammar/vocabulary.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";

/** Most characters of a schema: an enum of 5,000 words has 50,000. */
const MOST_CHARS = 2 ** 18;
/** Where a request says it, for errors. */
export interface FormatPlace {
  readonly param: string;
  readonly schemaParam: string;
}
const RESPONSE_FORMAT: FormatPlace = {
  param: "response_format",
  schemaParam: "response_format.json_schema.schema",
};
/** json_object is any object. */
const ANY_OBJECT = { type: "object" };

export const responseFormatSchema = z.object({
  type: z.enum(["text", "json_object", "json_schema"]),
  json_schema: z.object({
    name: z.string().min(1).max(64),
    description: z.string().nullish(),
    schema: z.record(z.string(), z.unknown()).nullish().openapi({
      description: "JSON Schema; default: any object",
    }),
    strict: z.boolean().nullish().openapi({
      description: "Refuse a schema that has keywords no grammar can enforce; default: leave these out",
    }),
  }).nullish(),
}).openapi("ResponseFormat");
export type ResponseFormat = z.infer<typeof responseFormatSchema>;

/**
 * null: any text.
 * @throws {OatmillError} invalid_request when the schema is missing, too long or nested too deeply
 */
export function grammarOf(
  format: ResponseFormat | null | undefined,
  model: Pick<OpenedModel, "name" | "tokenizer" | "spec">,
  place: FormatPlace = RESPONSE_FORMAT,
): GrammarRequest | null {
  const source = formatSource(format, place);
  if (!source) return null;
  const tokenizer = needTokenizer(model), stopIds = stopIdsOf(model);
  return {
    source,
    param: format?.type === "json_schema" ? place.schemaParam : place.param,
    vocabulary: async () => ({ tokens: await vocabularyTokens(tokenizer), stopIds }),
  };
}

/** The same, without a model. */
export function formatSource(
  format: ResponseFormat | null | undefined,
  { param, schemaParam }: FormatPlace = RESPONSE_FORMAT,
): SchemaSource | null {
  if (!format || format.type === "text") return null;
  if (format.type === "json_object") return { schema: JSON.stringify(ANY_OBJECT), strict: false };
  const { json_schema } = format;
  if (!json_schema) {
    const message = `Cannot use "${param}" of type "json_schema" without "json_schema"`;
    throw new OatmillError("invalid_request", message, `${param}.json_schema`);
  }
  return schemaSource(json_schema.schema ?? ANY_OBJECT, {
    enforce: Boolean(json_schema.strict),
    // Further properties only where the schema says so: a small model would never come to an end.
    closed: Boolean(json_schema.schema),
    param: schemaParam,
  });
}

/**
 * A schema of a request for the grammar's compiler.
 * @param options.enforce refuse keywords that no grammar can enforce, instead of leaving them out
 * @param options.closed objects have no properties but those that the schema names
 * @param options.param where the request has it
 * @throws {OatmillError} invalid_request
 */
export function schemaSource(
  schema: JsonSchema,
  { enforce, closed, param }: { enforce: boolean; closed: boolean; param: string },
): SchemaSource {
  const refuse = (reason: string): never => {
    throw new OatmillError("invalid_request", `Cannot use the schema of "${param}": ${reason}`, param);
  };
  const prepared = prepareSchema(schema);
  if (typeof prepared === "string") return refuse(prepared);
  if (enforce && prepared.loose.length > 0) {
    return refuse(`${prepared.loose[0]}; without "strict" it is left out`);
  }
  const text = JSON.stringify(prepared.schema);
  if (text.length > MOST_CHARS) {
    return refuse(`it has ${text.length} characters, at most ${MOST_CHARS} are allowed`);
  }
  return { schema: text, strict: closed };
}
