/** A config in the terms of the schema: what a family calls its fields, what missing ones mean, and which it must not have. */
import { OatmillError } from "../../errors.ts";
import type { Family } from "./family.ts";

type Fields = Readonly<Record<string, unknown>>;

const missing = (value: unknown): boolean => value === undefined || value === null;
const pick = (fields: Fields, field: string): unknown =>
  Object.hasOwn(fields, field) ? fields[field] : undefined;

/** The config's fields by the names of the schema, with the family's defaults. */
export function canonicalFields(whole: Fields, family: Family): Fields {
  const part = family.nested ? pick(whole, family.nested) : null;
  // The part goes before what stands around it, which says the architecture.
  const config: Fields = typeof part === "object" ? { ...whole, ...part } : whole;
  const named = Object.entries(family.fields ?? {})
    .filter(([, own]) => !missing(pick(config, own)))
    .map(([field, own]) => [field, config[own]]);
  const fields: Record<string, unknown> = { ...config, ...Object.fromEntries(named) };
  for (const [field, value] of Object.entries(family.defaults ?? {})) {
    if (missing(pick(fields, field))) fields[field] = value;
  }
  const hidden = fields.hidden_size, stated = family.intermediateFactor;
  const factor = typeof stated === "string" ? pick(fields, stated) : stated;
  if (typeof factor === "number" && typeof hidden === "number" && missing(fields.intermediate_size)) {
    fields.intermediate_size = gatedSize(Math.floor(factor * hidden), family.gatedMultiple);
  }
  return fields;
}

/** Two thirds of a size, so that a gate and `up` have as many weights together, in whole multiples. */
function gatedSize(size: number, multiple: number | undefined): number {
  return multiple ? Math.ceil(Math.floor(size * 2 / 3) / multiple) * multiple : size;
}

/** The family with what its config says of it. */
export function variantOf(family: Family, config: Fields): Family {
  const fields = canonicalFields(config, family);
  const first = (value: unknown) => Array.isArray(value) ? value[0] : value; // of architectures
  const holds = (when: Fields) =>
    Object.entries(when).every(([field, value]) => first(pick(fields, field)) === value);
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
