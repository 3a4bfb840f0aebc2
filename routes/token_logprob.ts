/** A token with its log-probability, as chat completions and responses show it. */
import { z } from "@hono/zod-openapi";
import type { TextToken } from "../engine/text.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { tokenString } from "./completions.ts";

const entrySchema = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
});
export const tokenLogprobSchema = entrySchema.extend({ top_logprobs: z.array(entrySchema) });
export type TokenLogprob = z.infer<typeof tokenLogprobSchema>;

export function tokenLogprob(token: TextToken, tokenizer: Tokenizer): TokenLogprob {
  const entry = (id: number, logprob: number) => ({
    token: tokenString(tokenizer, id),
    logprob,
    bytes: [...tokenizer.tokenBytes(id)],
  });
  const { logprob = 0, top = [] } = token.logprobs ?? {};
  return { ...entry(token.id, logprob), top_logprobs: top.map(([id, value]) => entry(id, value)) };
}
