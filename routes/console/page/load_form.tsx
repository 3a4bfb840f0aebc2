/** What a load is to be. */
import { useState } from "preact/hooks";
import { Field } from "./parts.tsx";
import type { LoadSettings, Model } from "./types.ts";

type Kind = LoadSettings["kind"];
type NumberName = Exclude<keyof LoadSettings, "model" | "kind">;
interface NumberField {
  readonly name: NumberName;
  readonly label: string;
  readonly value: number | null;
  readonly min: number;
  readonly max?: number;
  readonly step: number | "any";
  /** Only of that kind. */
  readonly kind?: Kind;
}
/** The server has the bounds; these are the same. */
const NUMBERS: readonly NumberField[] = [
  { name: "concurrency", label: "Users at a time", value: 4, min: 1, max: 64, step: 1, kind: "closed" },
  { name: "rate", label: "Requests a second", value: 2, min: 0.1, max: 100, step: "any", kind: "open" },
  { name: "seconds", label: "Seconds", value: 20, min: 1, max: 300, step: 1 },
  { name: "input_tokens", label: "Tokens of a prompt", value: 64, min: 1, max: 8192, step: 1 },
  { name: "output_tokens", label: "Tokens of an answer", value: 32, min: 1, max: 1024, step: 1 },
  { name: "ttft_ms", label: "Goodput: first token within ms", value: null, min: 1, step: "any" },
  { name: "tpot_ms", label: "Goodput: each further within ms", value: null, min: 0.1, step: "any" },
];
const DEFAULTS = Object.fromEntries(
  NUMBERS.map(({ name, value }) => [name, value === null ? "" : String(value)]),
);

export function LoadForm({ models, onStart }: {
  readonly models: readonly Model[];
  readonly onStart: (settings: Partial<LoadSettings>) => void;
}) {
  const [model, setModel] = useState(models.at(-1)?.id ?? "");
  const [kind, setKind] = useState<Kind>("closed");
  const [values, setValues] = useState<Readonly<Record<string, string>>>(DEFAULTS);
  const fields = NUMBERS.filter((field) => field.kind === undefined || field.kind === kind);
  const submit = (event: Event) => {
    event.preventDefault();
    const numbers = fields.filter(({ name }) => values[name] !== "").map((
      { name },
    ) => [name, Number(values[name])]);
    onStart({ model, kind, ...Object.fromEntries(numbers) });
  };
  if (models.length === 0) return <p>No models yet.</p>;
  return (
    <form class="load" onSubmit={submit}>
      <Field id="load-model" label="Model">
        <select id="load-model" value={model} onChange={(e) => setModel(e.currentTarget.value)}>
          {models.map(({ id }) => <option key={id} value={id}>{id}</option>)}
        </select>
      </Field>
      <Field id="load-kind" label="Load">
        <select id="load-kind" value={kind} onChange={(e) => setKind(e.currentTarget.value as Kind)}>
          <option value="closed">Closed: users who wait</option>
          <option value="open">Open: a rate, whatever comes</option>
        </select>
      </Field>
      {fields.map(({ name, label, min, max, step }) => (
        <Field key={name} id={`load-${name}`} label={label}>
          <input
            id={`load-${name}`}
            type="number"
            min={min}
            max={max}
            step={step}
            value={values[name]}
            onInput={(e) => setValues({ ...values, [name]: e.currentTarget.value })}
          />
        </Field>
      ))}
      <button type="submit" class="solid">Start</button>
    </form>
  );
}
