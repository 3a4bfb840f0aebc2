/** The recipe's form: a few fields that most people set, and all others behind a fold. */
import { Field } from "./parts.tsx";
import type { Filled, RecipeField } from "./recipe_fields.ts";

/** Always seen. */
const FIRST = ["preset", "method", "rate", "values"];

export function RecipeForm({ fields, filled, onChange }: {
  readonly fields: readonly RecipeField[];
  readonly filled: Filled;
  readonly onChange: (filled: Filled) => void;
}) {
  const set = (path: string, value: string | readonly string[]) => onChange({ ...filled, [path]: value });
  const show = (some: readonly RecipeField[]) =>
    some.map((field) => (
      <RecipeInput
        key={field.path}
        field={field}
        value={filled[field.path] ?? ""}
        onChange={(v) => set(field.path, v)}
      />
    ));
  return (
    <fieldset>
      <legend>Recipe</legend>
      <div class="recipe">{show(fields.filter(({ path }) => FIRST.includes(path)))}</div>
      <details>
        <summary>All fields</summary>
        <p class="help">What is left empty is as the preset, the method or the pattern have it.</p>
        <div class="recipe">{show(fields.filter(({ path }) => !FIRST.includes(path)))}</div>
      </details>
    </fieldset>
  );
}

interface InputProps {
  readonly field: RecipeField;
  readonly value: string | readonly string[];
  readonly onChange: (value: string | readonly string[]) => void;
}
function RecipeInput({ field, value, onChange }: InputProps) {
  const { path, kind, schema } = field, id = `recipe-${path}`;
  if (kind === "choices") return <Choices field={field} value={value} onChange={onChange} />;
  const common = {
    id,
    value: value as string,
    "aria-describedby": schema.description ? `${id}-help` : undefined,
    onChange: (event: Event) => onChange((event.currentTarget as HTMLInputElement).value),
  };
  const options = kind === "boolean" ? ["true", "false"] : schema.enum;
  const usual = schema.default === undefined || schema.default === null ? "" : String(schema.default);
  return (
    <Field id={id} label={path} help={schema.description}>
      {options
        ? (
          <select {...common}>
            <option value="">{usual === "" ? "–" : `default (${usual})`}</option>
            {options.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        )
        : <NumberOrText kind={kind} schema={schema} placeholder={usual} {...common} />}
    </Field>
  );
}

function Choices({ field: { path, schema }, value, onChange }: InputProps) {
  const chosen = [value].flat() as readonly string[];
  const toggle = (name: string, on: boolean) =>
    onChange(schema.items!.enum!.filter((n) => n === name ? on : chosen.includes(n)));
  return (
    <fieldset class="choices">
      <legend>{path}</legend>
      {schema.items!.enum!.map((name) => (
        <label key={name}>
          <input
            type="checkbox"
            checked={chosen.includes(name)}
            onChange={(e) => toggle(name, e.currentTarget.checked)}
          />
          {name}
        </label>
      ))}
      <p class="help">{schema.description}</p>
    </fieldset>
  );
}

function NumberOrText({ kind, schema: { minimum: min, maximum: max }, ...common }: {
  readonly kind: RecipeField["kind"];
  readonly schema: RecipeField["schema"];
  readonly id: string;
  readonly value: string;
  readonly placeholder: string;
  readonly onChange: (event: Event) => void;
}) {
  if (kind === "text") return <input type="text" {...common} />;
  return <input type="number" step={kind === "integer" ? 1 : "any"} min={min} max={max} {...common} />;
}
