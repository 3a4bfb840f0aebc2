/** The models there are: what compression made of their size and perplexity, how fast they answered. */
import { useState } from "preact/hooks";
import { messageOf, postJson, request } from "./api.ts";
import { bytes, digits, integer, percent, time } from "./format.ts";
import { DeleteButton, Failure, Loading, TableHead } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { List, Model, Speed, Status } from "./types.ts";

const EVERY_MS = 5000;

export const modelLink = (id: string): string => `#/models/${encodeURIComponent(id)}`;
export const deleteModel = (id: string): Promise<unknown> =>
  request(`/v1/models/${encodeURIComponent(id)}?drain=true`, { method: "DELETE" });

export function ModelsPage() {
  const models = useResource<List<Model>>("/v1/models", { everyMs: EVERY_MS });
  const status = useResource<Status>("/v1/status", { everyMs: EVERY_MS });
  const speeds = new Map(status.data?.speeds.map((s) => [s.model, s.tokens_per_second]));
  const measured = useResource<List<Speed>>("/v1/speeds", { everyMs: EVERY_MS });
  return (
    <>
      <h1>Models</h1>
      <Failure error={models.error} retry={models.reload} />
      {!models.data && !models.error && <Loading />}
      {models.data?.data.length === 0 && <p>No models yet.</p>}
      {models.data && models.data.data.length > 0 && (
        <ModelTable
          models={models.data.data}
          speeds={speeds}
          measured={measured.data?.data ?? []}
          onMeasured={measured.reload}
          onDeleted={models.reload}
        />
      )}
    </>
  );
}

/** A model through one of its LoRA adapters: what it adds, the rest is the model's. */
function AdapterRow({ model, onDeleted }: { readonly model: Model; readonly onDeleted: () => void }) {
  const { id, parent, adapter } = model;
  return (
    <tr>
      <th scope="row" data-label="Model">
        {id}
        <small class="muted">LoRA adapter of {parent}</small>
      </th>
      <td data-label="Adapter" colSpan={7}>
        rank {adapter!.rank}, {integer(adapter!.layers)} layers, {bytes(adapter!.bytes)}
      </td>
      <td data-label="Made" class="nowrap">{time(model.created)}</td>
      <td class="actions">
        <a class="button quiet" href={`#/playground/${encodeURIComponent(id)}`}>
          Try<span class="sr">{` ${id}`}</span>
        </a>
        <DeleteButton name={id} onConfirm={() => deleteModel(id).then(onDeleted)} />
      </td>
    </tr>
  );
}

const NUMBERS = [
  "Size, dense",
  "Size, compressed",
  "Perplexity, dense",
  "Perplexity, compressed",
  "Tokens/s, dense",
  "Tokens/s, compressed",
];

interface Speeds {
  /** Mean of the answers, by model. */
  readonly speeds: ReadonlyMap<string, number>;
  readonly measured: readonly Speed[];
  readonly onMeasured: () => void;
}
function ModelTable({ models, speeds, measured, onMeasured, onDeleted }: Speeds & {
  readonly models: readonly Model[];
  readonly onDeleted: () => void;
}) {
  return (
    <table class="cards">
      <TableHead columns={["Model", "Compression", ...NUMBERS, "Made"]} numbers={NUMBERS} />
      <tbody>
        {models.map((model) =>
          model.adapter ? <AdapterRow key={model.id} model={model} onDeleted={onDeleted} /> : (
            <ModelRow
              key={model.id}
              model={model}
              answers={speeds.get(model.id)}
              measured={measured.find((s) => s.version === model.version && s.model === model.id)}
              onMeasured={onMeasured}
              onDeleted={onDeleted}
            />
          )
        )}
      </tbody>
    </table>
  );
}

function ModelRow({ model, answers, measured, onMeasured, onDeleted }: {
  readonly model: Model;
  readonly answers: number | undefined;
  readonly measured: Speed | undefined;
  readonly onMeasured: () => void;
  readonly onDeleted: () => void;
}) {
  const speed = measured?.result;
  const { id, architecture, perplexity, dense_bytes: dense, bytes: packed } = model;
  return (
    <tr>
      <th scope="row" data-label="Model">
        <a href={modelLink(id)}>{id}</a>
        <small class="muted">{architecture}</small>
      </th>
      <td data-label="Compression">
        {model.method}
        <small class="muted">
          {model.method === "none" ? "" : `rate ${digits(model.rate)}, `}
          {model.values}
        </small>
      </td>
      <td data-label="Size, dense f16" class="number">{bytes(dense)}</td>
      <td data-label="Size, compressed" class="number">
        {bytes(packed)}
        <small class="muted">{percent(packed / dense)}</small>
      </td>
      <td data-label="Perplexity, dense" class="number">{perplexity ? digits(perplexity.dense) : "–"}</td>
      <td data-label="Perplexity, compressed" class="number">
        {perplexity ? digits(perplexity.compressed) : "–"}
        {perplexity && <small class="muted">{change(perplexity.compressed / perplexity.dense)}</small>}
      </td>
      <td data-label="Tokens/s, dense int8" class="number">
        {speed
          ? digits(speed.dense_int8.decode)
          : <MeasureButton id={id} measured={measured} onMeasured={onMeasured} />}
      </td>
      <td data-label="Tokens/s, compressed" class="number">
        {speed ? digits(speed.stored.decode) : answers === undefined ? "–" : digits(answers)}
        <small class="muted">
          {speed ? change(speed.ratio.decode) : answers === undefined ? "" : "of its answers"}
        </small>
      </td>
      <td data-label="Made" class="nowrap">{time(model.created)}</td>
      <td class="actions">
        <a class="button quiet" href={`#/playground/${encodeURIComponent(id)}`}>
          Try<span class="sr">{` ${id}`}</span>
        </a>
        <DeleteButton name={id} onConfirm={() => deleteModel(id).then(onDeleted)} />
      </td>
    </tr>
  );
}

/** A dense model of the same shape beside it, both in turn: takes the server for some seconds. */
function MeasureButton({ id, measured, onMeasured }: {
  readonly id: string;
  readonly measured: Speed | undefined;
  readonly onMeasured: () => void;
}) {
  const [error, setError] = useState<unknown>(null);
  if (measured?.status === "running") return <span role="status">measuring…</span>;
  const measure = () => {
    setError(null);
    postJson("/v1/speeds", { model: id }).then(onMeasured, setError);
  };
  return (
    <>
      <button type="button" class="quiet" onClick={measure}>
        Measure<span class="sr">{` ${id} beside a dense model`}</span>
      </button>
      {(error || measured?.error) && (
        <small class="muted" role="alert">{error ? messageOf(error) : measured!.error}</small>
      )}
    </>
  );
}

export const change = (ratio: number): string => `${ratio >= 1 ? "+" : "−"}${percent(Math.abs(ratio - 1))}`;
