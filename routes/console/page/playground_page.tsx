/** The playground: talk to a model, or to two side by side; classify an image or a text. */
import { useEffect, useState } from "preact/hooks";
import { Failure, Field, Loading } from "./parts.tsx";
import { Classifier } from "./classifier.tsx";
import { Conversation } from "./conversation.tsx";
import { useModelKind } from "./model_kind.ts";
import { useResource } from "./resource.ts";
import type { List, Model } from "./types.ts";

/** `#/playground/NAME` begins with that model. */
const modelOfAddress = (): string | null => {
  const [, name] = /^#\/playground\/(.+)$/.exec(location.hash) ?? [];
  return name ? decodeURIComponent(name) : null;
};

export function PlaygroundPage() {
  const models = useResource<List<Model>>("/v1/models");
  const [first, setFirst] = useState<string | null>(modelOfAddress);
  const [second, setSecond] = useState<string | null>(null);
  const ids = models.data?.data.map(({ id }) => id) ?? [];
  useEffect(() => {
    if (first === null && ids.length > 0) setFirst(ids.at(-1)!);
  }, [models.data]);
  const kind = useModelKind(first);
  return (
    <>
      <h1>Playground</h1>
      <Failure error={models.error} retry={models.reload} />
      {!models.data && !models.error && <Loading />}
      {models.data && ids.length === 0 && <p>No models yet.</p>}
      {ids.length > 0 && (
        <div class="row">
          <ModelSelect id="model" label="Model" ids={ids} value={first} onChange={setFirst} />
          {(kind === "text" || second !== null) && (
            <ModelSelect
              id="model-2"
              label="Beside it"
              none="No other"
              ids={ids}
              value={second}
              onChange={setSecond}
            />
          )}
        </div>
      )}
      {first !== null && kind === "text" && (
        <Conversation models={second === null ? [first] : [first, second]} />
      )}
      {first !== null && kind === "embeddings" && (
        <p>{first} makes vectors: POST /v1/embeddings gives them.</p>
      )}
      {first !== null && kind?.endsWith("classifier") && (
        <Classifier key={first} model={first} reads={kind === "image classifier" ? "image" : "text"} />
      )}
    </>
  );
}

function ModelSelect({ id, label, none, ids, value, onChange }: {
  readonly id: string;
  readonly label: string;
  /** What choosing none is called; absent: one must be chosen. */
  readonly none?: string;
  readonly ids: readonly string[];
  readonly value: string | null;
  readonly onChange: (id: string | null) => void;
}) {
  return (
    <Field id={id} label={label}>
      <select id={id} value={value ?? ""} onChange={(e) => onChange(e.currentTarget.value || null)}>
        {none && <option value="">{none}</option>}
        {ids.map((one) => <option key={one} value={one}>{one}</option>)}
      </select>
    </Field>
  );
}
