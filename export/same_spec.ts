/** Whether two specs are of the same model. */
import { isDeepStrictEqual } from "node:util";
import type { ModelSpec } from "../models/spec.ts";

/** What a spec says beside the model itself. */
const ASIDE = ["architecture", "bosId", "eosIds"];
/** Digits of a float32: formats hold numbers in it. */
const DIGITS = 6;

type Fields = Record<string, unknown>;

/** The first field in which they differ by more than float32; null: none. */
export function differentField(a: ModelSpec, b: ModelSpec): string | null {
  const [left, right] = [rounded(a), rounded(b)];
  const all = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...all].find((field) => !ASIDE.includes(field) && !isDeepStrictEqual(left[field], right[field])) ??
    null;
}

const rounded = (spec: ModelSpec): Fields =>
  JSON.parse(
    JSON.stringify(spec, (_, value) => typeof value === "number" ? value.toPrecision(DIGITS) : value),
  );
