/** JSON Schemas before they become grammars: what a grammar cannot enforce, and what xgrammar 0.1.27 needs to be told. */

export type JsonSchema = Readonly<Record<string, unknown>>;

export interface PreparedSchema {
  /** For the compiler. */
  readonly schema: JsonSchema;
  /** What the grammar does not enforce, as "#/path: reason". */
  readonly loose: readonly string[];
}

/** Most levels of objects and arrays; a schema of a hundred properties in groups of groups has 20. */
const MOST_LEVELS = 64;
/** Largest integer that readers of JSON hold exactly. */
const LARGEST = Number.MAX_SAFE_INTEGER;

/** Keywords whose value holds schemas: one, a list, or one by name. */
const ONE = ["items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "propertyNames"];
const LISTS = ["anyOf", "oneOf", "allOf", "prefixItems"];
const BY_NAME = ["properties", "patternProperties", "$defs", "definitions"];

/** A grammar reads a text once from left to right: it counts no values, compares none, and negates nothing. */
const UNENFORCED = [
  "multipleOf",
  "uniqueItems",
  "contains",
  "minContains",
  "maxContains",
  "not",
  "if",
  "dependencies",
  "dependentRequired",
  "dependentSchemas",
  "$dynamicRef",
];
const LOOKAROUND = /\(\?(?:[=!]|<[=!])/;

/** @returns why the schema is refused, or what to compile */
export function prepareSchema(schema: JsonSchema): PreparedSchema | string {
  if (deeperThan(schema, MOST_LEVELS)) return `it is nested more than ${MOST_LEVELS} levels deep`;
  const loose: string[] = [];
  return { schema: prepare(schema, "#", loose) as JsonSchema, loose };
}

/** Level by level: JSON may be nested deeper than functions can be. */
export function deeperThan(value: unknown, most: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most) return true;
    level = level.filter(isObject).flatMap((v) => Object.values(v));
  }
  return false;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null;

function prepare(schema: unknown, path: string, loose: string[]): unknown {
  if (!isObject(schema) || Array.isArray(schema)) return schema; // true, false, or the compiler's to refuse
  loose.push(...unenforced(schema).map((reason) => `${path}: ${reason}`));
  const out: Record<string, unknown> = { ...schema, ...otherBound(schema) };
  // Read as other characters, it would refuse what it should allow.
  if (typeof out.pattern === "string" && LOOKAROUND.test(out.pattern)) delete out.pattern;
  for (const key of ONE) if (key in out) out[key] = prepare(out[key], `${path}/${key}`, loose);
  for (const key of LISTS) {
    const list = out[key];
    if (Array.isArray(list)) out[key] = list.map((s, i) => prepare(s, `${path}/${key}/${i}`, loose));
  }
  for (const key of BY_NAME) {
    const named = out[key];
    if (!isObject(named)) continue;
    const entries = Object.entries(named).map(([n, s]) => [n, prepare(s, `${path}/${key}/${n}`, loose)]);
    out[key] = Object.fromEntries(entries);
  }
  return out;
}

/** With a lower bound of one digit and no upper one, 3 passes for 5 and more. */
function otherBound(schema: JsonSchema): JsonSchema {
  const low = "minimum" in schema || "exclusiveMinimum" in schema;
  const high = "maximum" in schema || "exclusiveMaximum" in schema;
  if (low === high) return {};
  return low ? { maximum: LARGEST } : { minimum: -LARGEST };
}

function unenforced(schema: JsonSchema): string[] {
  const { allOf, oneOf, pattern, properties, required, additionalProperties = false } = schema;
  const found = UNENFORCED.filter((key) => key in schema).map((key) => `"${key}" cannot be enforced`);
  if (Array.isArray(allOf) && allOf.length > 1) found.push('"allOf" of several schemas cannot be enforced');
  if (Array.isArray(oneOf) && oneOf.length > 1) found.push('"oneOf" cannot be enforced: use "anyOf"');
  if (typeof pattern === "string") {
    if (LOOKAROUND.test(pattern)) found.push('"pattern" looks around');
    const beside = ["minLength", "maxLength", "format"].filter((key) => key in schema);
    if (beside.length > 0) found.push(`"${beside[0]}" cannot be enforced beside "pattern"`);
  }
  if (!isObject(properties)) return found;
  // A name that `properties` has could come again, with any value.
  if (additionalProperties !== false) found.push('"additionalProperties" beside "properties" must be false');
  const missing = Array.isArray(required) ? required.find((name) => !(name in properties)) : undefined;
  if (missing !== undefined) found.push(`"required" has "${missing}", which "properties" does not have`);
  return found;
}
