/** The recipe's JSON Schema as fields of a form, and what is in them as a recipe. */

/** As much of JSON Schema as the recipe's has. */
export interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly default?: unknown;
  readonly description?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
}

export interface RecipeField {
  /** `calibration.text` */
  readonly path: string;
  readonly kind: "choice" | "choices" | "number" | "integer" | "boolean" | "text";
  readonly schema: Schema;
}
/** What the user filled in, by path; what is not there is the server's to decide. */
export type Filled = Readonly<Record<string, string | readonly string[]>>;

export function recipeFields(schema: Schema, path = ""): RecipeField[] {
  const variants = variantsOf(schema), groups = variants.filter(({ properties }) => properties);
  if (groups.length === 0) {
    return [{ path, kind: kindOf(variants), schema: Object.assign({}, ...variants, schema) }];
  }
  return groups.flatMap(({ properties }) =>
    Object.entries(properties!).flatMap(([name, s]) =>
      recipeFields(s, path === "" ? name : `${path}.${name}`)
    )
  );
}

/** What a value may be, besides null. */
const variantsOf = (schema: Schema): Schema[] =>
  schema.anyOf ? schema.anyOf.flatMap(variantsOf) : schema.type === "null" ? [] : [schema];

function kindOf([{ type, enum: names, items }]: readonly Schema[]): RecipeField["kind"] {
  if (names) return "choice";
  if (items?.enum) return "choices";
  const types = [type].flat();
  return (["integer", "number", "boolean"] as const).find((kind) => types.includes(kind)) ?? "text";
}

export function toRecipe(fields: readonly RecipeField[], filled: Filled): Record<string, unknown> {
  const recipe: Record<string, unknown> = {};
  for (const { path, kind } of fields) {
    const value = filled[path];
    if (value === undefined || value.length === 0) continue;
    const names = path.split("."), last = names.pop()!;
    let at = recipe;
    for (const name of names) at = (at[name] ??= {}) as Record<string, unknown>;
    at[last] = kind === "number" || kind === "integer"
      ? Number(value)
      : kind === "boolean"
      ? value === "true"
      : value;
  }
  return recipe;
}
