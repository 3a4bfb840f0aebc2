/** The JSON body of POST /v1/models: a model that a hub has, in place of files. */
import { z } from "@hono/zod-openapi";
import { checkReference } from "../hub/reference.ts";
import { recipeSchema } from "../models/recipe.ts";
import { invalidInput } from "./errors.ts";
import { readJson } from "./json_body.ts";

export const hubBodySchema = z.strictObject({
  source: z.strictObject({
    hub: z.string().openapi({
      description: "organisation/name",
      example: "HuggingFaceTB/SmolLM2-135M-Instruct",
    }),
    revision: z.string().optional().openapi({ description: "Branch, tag or commit; default main" }),
    file: z.string().optional().openapi({ description: "The .gguf file to take, of several" }),
  }),
  recipe: recipeSchema.optional(),
  name: z.string().optional().openapi({ description: "The model's id; default: the hub's name for it" }),
}).openapi("HubModel");

export type HubBody = Omit<z.infer<typeof hubBodySchema>, "recipe"> & { readonly recipe?: unknown };

/** @throws {OatmillError} invalid_request, too_large */
export async function readHubBody(request: Request, maxBytes: number): Promise<HubBody> {
  const value = await readJson(request, maxBytes);
  // The recipe is read as that of an upload is, with its own code for mistakes.
  const parsed = hubBodySchema.omit({ recipe: true }).extend({ recipe: z.unknown().optional() }).safeParse(
    value,
  );
  if (!parsed.success) throw invalidInput(parsed.error);
  const { hub: repo, revision } = parsed.data.source;
  checkReference({ repo, revision });
  return parsed.data;
}
