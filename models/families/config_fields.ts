/** A config in the terms of the schema: what a family calls its fields, what missing ones mean, and which it must not have. */
import { OatmillError } from "../../errors.ts";
import type { Family } from "./family.ts";

type Fields = Readonly<Record<string, unknown>>;

const missing = (value: unknown): boolean => value === undefined || value === null;
const pick = (fields: Fields, field: string): unknown =>
  Object.hasOwn(fields, field) ? fields[field] : undefined;

/** The config's fields by the names of the schema, with the family's defaults. */
export function canonicalFields(config: Fields, family: Family): Fields {
  const named = Object.entries(family.fields ?? {})
    .filter(([, own]) => !missing(pick(config, own)))
    .map(([field, own]) => [field, config[own]]);
  const fields: Record<string, unknown> = { ...config, ...Object.fromEntries(named) };
  for (const [field, value] of Object.entries(family.defaults ?? {})) {
    if (missing(pick(fields, field))) fields[field] = value;
  }
  const hidden = fields.hidden_size, factor = family.intermediateFactor;
  if (factor && typeof hidden === "number" && missing(fields.intermediate_size)) {
    fields.intermediate_size = factor * hidden;
  }
  return fields;
}

/** The family with what its config says of it. */
export function variantOf(family: Family, config: Fields): Family {
  const fields = canonicalFields(config, family);
  const holds = (when: Fields) =>
    Object.entries(when).every(([field, value]) => pick(fields, field) === value);
  return (family.variants ?? []).filter(({ when }) => holds(when))
    .reduce(
      (all, { then }) => ({ ...all, ...then, defaults: { ...all.defaults, ...then.defaults } }),
      family,
    );
}

/** @throws {OatmillError} unsupported_architecture naming the field */
export function checkRequirements(fields: Fields, family: Family, source: string): void {
  for (const [field, wanted] of Object.entries(family.requires ?? {})) {
    const value = pick(fields, field);
    if (missing(value) || value === wanted) continue;
    throw new OatmillError(
      "unsupported_architecture",
      `Cannot run ${family.name} of ${source}: ${field} is ${JSON.stringify(value)?.slice(0, 80)}, known is ${
        JSON.stringify(wanted)
      }`,
      field,
    );
  }
}
