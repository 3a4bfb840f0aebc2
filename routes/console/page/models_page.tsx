/** The models there are: what compression made of their size and perplexity, how fast they answered. */
import { request } from "./api.ts";
import { bytes, digits, percent, time } from "./format.ts";
import { DeleteButton, Failure, Loading } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { List, Model, Status } from "./types.ts";

const EVERY_MS = 5000;

export const modelLink = (id: string): string => `#/models/${encodeURIComponent(id)}`;
export const deleteModel = (id: string): Promise<unknown> =>
  request(`/v1/models/${encodeURIComponent(id)}?drain=true`, { method: "DELETE" });

export function ModelsPage() {
  const models = useResource<List<Model>>("/v1/models", { everyMs: EVERY_MS });
  const status = useResource<Status>("/v1/status", { everyMs: EVERY_MS });
  const speeds = new Map(status.data?.speeds.map((s) => [s.model, s.tokens_per_second]));
  return (
    <>
      <h1>Models</h1>
      <Failure error={models.error} retry={models.reload} />
      {!models.data && !models.error && <Loading />}
      {models.data?.data.length === 0 && <p>No models yet.</p>}
      {models.data && models.data.data.length > 0 && (
        <ModelTable models={models.data.data} speeds={speeds} onDeleted={models.reload} />
      )}
    </>
  );
}

function ModelTable({ models, speeds, onDeleted }: {
  readonly models: readonly Model[];
  readonly speeds: ReadonlyMap<string, number>;
  readonly onDeleted: () => void;
}) {
  return (
    <table class="cards">
      <thead>
        <tr>
          <th scope="col">Model</th>
          <th scope="col">Compression</th>
          <th scope="col" class="number">Size, dense</th>
          <th scope="col" class="number">Size, compressed</th>
          <th scope="col" class="number">Perplexity, dense</th>
          <th scope="col" class="number">Perplexity, compressed</th>
          <th scope="col" class="number">Tokens/s</th>
          <th scope="col">Made</th>
          <th scope="col">
            <span class="sr">Actions</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {models.map((model) => (
          <ModelRow key={model.id} model={model} speed={speeds.get(model.id)} onDeleted={onDeleted} />
        ))}
      </tbody>
    </table>
  );
}

function ModelRow({ model, speed, onDeleted }: {
  readonly model: Model;
  readonly speed: number | undefined;
  readonly onDeleted: () => void;
}) {
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
      <td data-label="Tokens/s" class="number">{speed === undefined ? "–" : digits(speed)}</td>
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

export const change = (ratio: number): string => `${ratio >= 1 ? "+" : "−"}${percent(Math.abs(ratio - 1))}`;
