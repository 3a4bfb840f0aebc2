/** One model: facts, files to download, and what compression did to each of its layers. */
import { bytes, digits, integer, percent, time } from "./format.ts";
import { Versions } from "./versions.tsx";
import { LayerCharts } from "./layer_charts.tsx";
import { change, deleteModel } from "./models_page.tsx";
import { DeleteButton, Download, type Fact, Facts, Failure, Loading } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { Model } from "./types.ts";

export function ModelPage({ id }: { readonly id: string }) {
  const path = `/v1/models/${encodeURIComponent(id)}`;
  const model = useResource<Model>(path);
  return (
    <>
      <p class="crumbs">
        <a href="#/models">Models</a>
      </p>
      <div class="title">
        <h1>{id}</h1>
        <div class="actions">
          <a class="button" href={`#/playground/${encodeURIComponent(id)}`}>Try it</a>
          <DeleteButton
            name={id}
            onConfirm={async () => {
              await deleteModel(id);
              location.hash = "#/models";
            }}
          />
        </div>
      </div>
      <Failure error={model.error} retry={model.reload} />
      {!model.data && !model.error && <Loading />}
      {model.data && (
        <>
          <Overview model={model.data} />
          <LayerCharts model={model.data} />
          {model.data.versions.length > 1 && <Versions id={id} model={model.data} onChanged={model.reload} />}
          <Files model={model.data} path={path} />
        </>
      )}
    </>
  );
}

function Overview({ model }: { readonly model: Model }) {
  const { perplexity: p, bytes: packed, dense_bytes: dense } = model;
  const facts: Fact[] = [
    ["Architecture", model.architecture],
    ["Context", model.context_length === 0 ? "–" : `${integer(model.context_length)} tokens`],
    ["Compression", model.method, `rate ${digits(model.rate)}, ${model.values}`],
    ["Sparsity of S", percent(model.sparsity)],
    ["Size, dense f16", bytes(dense)],
    ["Size, compressed", bytes(packed), percent(packed / dense)],
    ["Perplexity, dense", p ? digits(p.dense) : "–", p ? `${integer(p.tokens)} tokens` : undefined],
    [
      "Perplexity, compressed",
      p ? digits(p.compressed) : "–",
      p ? change(p.compressed / p.dense) : undefined,
    ],
    ["Made", time(model.created)],
  ];
  return <Facts label="The model" facts={facts} />;
}

function Files({ model, path }: { readonly model: Model; readonly path: string }) {
  const files = [{ name: "oatmill.json", bytes: null, sha256: null }, ...model.files];
  return (
    <section aria-labelledby="files">
      <h2 id="files">Files</h2>
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col" class="number">Bytes</th>
            <th scope="col" class="wide">SHA-256</th>
          </tr>
        </thead>
        <tbody>
          {files.map((file) => (
            <tr key={file.name}>
              <th scope="row">
                <Download path={`${path}/files/${encodeURIComponent(file.name)}`} name={file.name} />
              </th>
              <td class="number">{file.bytes === null ? "–" : bytes(file.bytes)}</td>
              <td class="wide">
                <code>{file.sha256?.slice(0, 16) ?? "–"}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
