/** Compress: a model's files go up in parts, a recipe says how, and a job begins; below are the jobs there are. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, postJson } from "./api.ts";
import { type Chosen, droppedFiles, folderFiles, modelNameOf } from "./dropped_files.ts";
import { bytes, percent } from "./format.ts";
import { JobList } from "./job_list.tsx";
import { Failure, Field, Loading } from "./parts.tsx";
import { hubBody, HubFields, type HubSource, NO_HUB } from "./hub_fields.tsx";
import { type Filled, recipeFields, type Schema, toRecipe } from "./recipe_fields.ts";
import { RecipeForm } from "./recipe_form.tsx";
import { useResource } from "./resource.ts";
import type { Job } from "./types.ts";
import { uploadFile } from "./upload.ts";

/** The recipe's schema is that of the API's own document. */
interface ApiDocument {
  readonly components: { readonly schemas: { readonly Recipe: Schema } };
}

export function CompressPage() {
  const { data, error } = useResource<ApiDocument>("/openapi.json");
  const fields = useMemo(() => data ? recipeFields(data.components.schemas.Recipe) : null, [data]);
  return (
    <>
      <h1>Compress</h1>
      <Failure error={error} />
      {!fields && !error && <Loading />}
      {fields && <CompressForm fields={fields} />}
      <JobList />
    </>
  );
}

/** By file name. */
type Progress = Readonly<Record<string, { readonly sentBytes: number; readonly leftOut?: string }>>;

function CompressForm({ fields }: { readonly fields: ReturnType<typeof recipeFields> }) {
  const [chosen, setChosen] = useState<Chosen | null>(null);
  const [hub, setHub] = useState<HubSource>(NO_HUB);
  const [name, setName] = useState("");
  const [filled, setFilled] = useState<Filled>({});
  const [progress, setProgress] = useState<Progress>({});
  const [abort, setAbort] = useState<AbortController | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => () => abort?.abort(), [abort]);
  const choose = (files: Chosen) => {
    setChosen(files);
    setName(modelNameOf(files));
    setProgress({});
    setError(null);
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!chosen && !hub.repo || abort) return;
    const controller = new AbortController(), { signal } = controller;
    setAbort(controller);
    setError(null);
    try {
      const onProgress = (file: string, one: Progress[string]) => setProgress((p) => ({ ...p, [file]: one }));
      const asked = { recipe: toRecipe(fields, filled), ...name ? { name } : {} };
      const { id } = chosen
        ? await compressFiles({ files: await uploadAll(chosen, { signal, onProgress }), ...asked }, signal)
        : await postJson<Job>("/v1/models", { source: hubBody(hub), ...asked }, { signal });
      location.hash = `#/compress/${id}`;
    } catch (caught) {
      if (!signal.aborted) setError(caught);
    }
    setAbort(null);
  };
  return (
    <form class="compress" onSubmit={submit}>
      <div>
        <DropZone onFiles={choose} disabled={abort !== null} />
        {chosen && <FileList chosen={chosen} progress={progress} sending={abort !== null} />}
        {!chosen && <HubFields hub={hub} onChange={setHub} disabled={abort !== null} />}
        <Field
          id="name"
          label="Name of the compressed model"
          help="Requests name it so; a name that exists gets a new version."
        >
          <input
            id="name"
            value={name}
            maxLength={96}
            pattern="[A-Za-z0-9][A-Za-z0-9._\-]*"
            aria-describedby="name-help"
            onInput={(e) => setName(e.currentTarget.value)}
          />
        </Field>
        <Failure error={error} />
        <div class="actions">
          <button type="submit" class="solid" disabled={!chosen && !hub.repo || abort !== null}>
            {error ? "Go on" : !chosen && hub.repo ? "Fetch and compress" : "Upload and compress"}
          </button>
          {abort && <button type="button" onClick={() => abort.abort()}>Stop the upload</button>}
        </div>
      </div>
      <RecipeForm fields={fields} filled={filled} onChange={setFilled} />
    </form>
  );
}

const compressFiles = (body: object, signal: AbortSignal): Promise<Job> =>
  postJson<Job>("/v1/compressions", body, { signal });

interface UploadAllOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (file: string, progress: Progress[string]) => void;
}
/** What is empty stays here, and of a folder what is no part of a model: the server says what it takes. @returns ids of /v1/files */
async function uploadAll(
  { files, folder }: Chosen,
  { signal, onProgress }: UploadAllOptions,
): Promise<string[]> {
  const ids: string[] = [];
  for (const file of files) {
    if (file.size === 0) {
      onProgress(file.name, { sentBytes: 0, leftOut: "it is empty" });
      continue;
    }
    try {
      ids.push(
        await uploadFile(file, { signal, onProgress: (sentBytes) => onProgress(file.name, { sentBytes }) }),
      );
    } catch (error) {
      const refused = error instanceof ApiError && error.code === "unsupported_format";
      if (folder === null || !refused) throw error;
      onProgress(file.name, { sentBytes: 0, leftOut: "no part of a model" });
    }
  }
  if (ids.length === 0) throw new Error("None of these files is part of a model");
  return ids;
}

function DropZone(
  { onFiles, disabled }: { readonly onFiles: (chosen: Chosen) => void; readonly disabled: boolean },
) {
  const [over, setOver] = useState(false);
  const folder = useRef<HTMLInputElement>(null);
  // Not in TypeScript's or preact's types, and in every browser.
  useEffect(() => folder.current!.setAttribute("webkitdirectory", ""), []);
  const drop = async (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    if (!disabled && event.dataTransfer) onFiles(await droppedFiles(event.dataTransfer));
  };
  const taken = (input: HTMLInputElement, read: (list: FileList) => Chosen) => {
    if (input.files?.length) onFiles(read(input.files));
  };
  return (
    <div
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => (event.preventDefault(), setOver(true))}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <p>
        Drop a model here: the folder from Hugging Face, a .gguf or .onnx file, or an archive of either. Texts
        (.txt, .jsonl) and images may come along to calibrate with.
      </p>
      <div class="row">
        <Field id="files" label="Files">
          <input
            id="files"
            type="file"
            multiple
            disabled={disabled}
            onChange={(e) => taken(e.currentTarget, (list) => ({ files: [...list], folder: null }))}
          />
        </Field>
        <Field id="folder" label="A folder">
          <input
            ref={folder}
            id="folder"
            type="file"
            disabled={disabled}
            onChange={(e) => taken(e.currentTarget, folderFiles)}
          />
        </Field>
      </div>
    </div>
  );
}

function FileList({ chosen: { files }, progress, sending }: {
  readonly chosen: Chosen;
  readonly progress: Progress;
  readonly sending: boolean;
}) {
  const wanted = files.filter(({ name }) => !progress[name]?.leftOut);
  const all = wanted.reduce((sum, { size }) => sum + size, 0);
  const sent = wanted.reduce((sum, { name }) => sum + (progress[name]?.sentBytes ?? 0), 0);
  return (
    <div class="files">
      <div class="row">
        <progress aria-label="Uploaded" max={Math.max(1, all)} value={sent} />
        <span role="status">
          {sending
            ? `${percent(sent / Math.max(1, all))} of ${bytes(all)} sent`
            : `${files.length} files, ${bytes(all)}`}
        </span>
      </div>
      <ul>
        {files.map(({ name, size }) => (
          <li key={name}>
            <span>{name}</span>
            <span class="muted">{fileState(size, progress[name])}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

function fileState(size: number, progress: Progress[string] | undefined): string {
  if (progress?.leftOut) return `left out: ${progress.leftOut}`;
  if (!progress) return bytes(size);
  return progress.sentBytes < size
    ? `${percent(progress.sentBytes / size)} of ${bytes(size)}`
    : `${bytes(size)} ✓`;
}
