/**
 * Lists of requests that may be long: Zod's own arrays note every wrong element (200,000 wrong ids hold the HTTP thread for a
 * second and overflow its stack); these name the first.
 */
import { z } from "@hono/zod-openapi";

export interface ListOptions<T> {
  readonly is: (value: unknown) => value is T;
  /** What an element should be. */
  readonly expected: string;
  /** The element's schema in the OpenAPI document. */
  readonly items: object;
  /** Fewest elements; default 1. */
  readonly min?: number;
}

export function listOf<T>({ is, expected, items, min = 1 }: ListOptions<T>): z.ZodType<T[], T[]> {
  const array: object = { type: "array", items, minItems: min };
  return z.custom<T[]>().superRefine((list: unknown, context) => {
    if (!Array.isArray(list)) {
      return context.addIssue({ code: "invalid_type", expected: "array", input: list });
    }
    if (list.length < min) {
      return context.addIssue({
        code: "too_small",
        origin: "array",
        minimum: min,
        inclusive: true,
        input: list,
      });
    }
    const wrong = list.findIndex((value) => !is(value));
    if (wrong >= 0) context.addIssue({ code: "custom", path: [wrong], message: `expected ${expected}` });
  }).openapi(array);
}

const isTokenId = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0;
const isTokenIds = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length > 0 && value.every(isTokenId);
const isString = (value: unknown): value is string => typeof value === "string";

const ID = { type: "integer", minimum: 0 };
export const tokenIds = listOf({ is: isTokenId, expected: "a token id", items: ID });
export const maybeNoTokens = listOf({ is: isTokenId, expected: "a token id", items: ID, min: 0 });
export const tokenLists = listOf({
  is: isTokenIds,
  expected: "a list of token ids",
  items: { type: "array", items: ID, minItems: 1 },
});
export const strings = listOf({ is: isString, expected: "string", items: { type: "string" } });
export const nonEmptyStrings = listOf({
  is: (value): value is string => isString(value) && value !== "",
  expected: "a string that is not empty",
  items: { type: "string", minLength: 1 },
});
