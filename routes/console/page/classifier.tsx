/** Labels of an image that is dropped or chosen, or of a text. */
import { useEffect, useState } from "preact/hooks";
import { getJson, jsonBody } from "./api.ts";
import { duration, percent } from "./format.ts";
import { Failure, Field } from "./parts.tsx";

interface Label {
  readonly label: string;
  readonly score: number;
}
interface Classification {
  readonly data: readonly { readonly labels: readonly Label[] }[];
}
interface Result {
  readonly labels: readonly Label[];
  readonly seconds: number;
}
const TOP = 5;

export function Classifier({ model, reads }: { readonly model: string; readonly reads: "image" | "text" }) {
  const [result, setResult] = useState<Result | null>(null);
  const [error, setError] = useState<unknown>(null);
  const classify = async (init: RequestInit) => {
    setError(null);
    setResult(null);
    const start = performance.now();
    try {
      const { data } = await getJson<Classification>("/v1/classify", init);
      setResult({ labels: data[0].labels, seconds: (performance.now() - start) / 1000 });
    } catch (caught) {
      setError(caught);
    }
  };
  const image = (file: File) => {
    const form = new FormData();
    form.append("model", model);
    form.append("top_k", String(TOP));
    form.append("image", file);
    classify({ method: "POST", body: form });
  };
  const text = (input: string) => classify(jsonBody({ model, input, top_k: TOP }));
  return (
    <div class="classifier">
      {reads === "image" ? <ImageInput onFile={image} /> : <TextInput onText={text} />}
      <Failure error={error} />
      <div role="status">{result && <Labels {...result} />}</div>
    </div>
  );
}

function Labels({ labels, seconds }: Result) {
  return (
    <table class="labels">
      <caption>Likeliest labels, after {duration(seconds)}</caption>
      <thead>
        <tr>
          <th scope="col">Label</th>
          <th scope="col" class="number">Probability</th>
          <th aria-hidden="true" />
        </tr>
      </thead>
      <tbody>
        {labels.map(({ label, score }) => (
          <tr key={label}>
            <th scope="row">{label}</th>
            <td class="number">{percent(score)}</td>
            <td aria-hidden="true">
              <progress max={1} value={score} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function ImageInput({ onFile }: { readonly onFile: (file: File) => void }) {
  const [file, setFile] = useState<File | null>(null);
  const [address, setAddress] = useState<string | null>(null);
  useEffect(() => {
    if (!file) return;
    const url = URL.createObjectURL(file);
    setAddress(url);
    return () => URL.revokeObjectURL(url);
  }, [file]);
  const take = (files: FileList | null | undefined) => {
    if (!files?.[0]) return;
    setFile(files[0]);
    onFile(files[0]);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    take(event.dataTransfer?.files);
  };
  return (
    <div class="drop" onDragOver={(e) => e.preventDefault()} onDrop={drop}>
      {address && <img src={address} alt={`The image ${file!.name}`} />}
      <label for="image">Drop an image here, or choose one (JPEG, PNG, WebP)</label>
      <input
        id="image"
        type="file"
        accept="image/jpeg,image/png,image/webp"
        onChange={(e) => take(e.currentTarget.files)}
      />
    </div>
  );
}

function TextInput({ onText }: { readonly onText: (text: string) => void }) {
  const [text, setText] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    onText(text);
  };
  return (
    <form class="composer" onSubmit={submit}>
      <Field id="text" label="Text">
        <textarea id="text" rows={4} value={text} onInput={(e) => setText(e.currentTarget.value)} />
      </Field>
      <button type="submit" class="solid" disabled={text.trim() === ""}>Classify</button>
    </form>
  );
}
