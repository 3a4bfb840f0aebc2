/** The versions of a model's name: which one it stands for, and which may go. */
import { useState } from "preact/hooks";
import { postJson } from "./api.ts";
import { bytes, digits, time } from "./format.ts";
import { deleteModel } from "./models_page.tsx";
import { DeleteButton, Failure, TableHead } from "./parts.tsx";
import type { Model } from "./types.ts";

/** Of a version's SHA-256: enough to tell them apart. */
const SHOWN = 12;

export function Versions({ id, model, onChanged }: {
  readonly id: string;
  readonly model: Model;
  readonly onChanged: () => void;
}) {
  const [error, setError] = useState<unknown>(null);
  const use = (version: string) =>
    postJson(`/v1/models/${encodeURIComponent(id)}`, { version }).then(onChanged, setError);
  return (
    <section aria-labelledby="versions">
      <h2 id="versions">Versions</h2>
      <Failure error={error} />
      <table class="cards">
        <TableHead columns={["Version", "Compression", "Size", "Made"]} numbers={["Size"]} />
        <tbody>
          {model.versions.map(({ version, created, current, method, rate, bytes: size }) => (
            <tr key={version}>
              <th scope="row">
                <code>{version.slice(0, SHOWN)}</code>
                {current && <small class="muted">current</small>}
              </th>
              <td data-label="Compression">{method}, rate {digits(rate)}</td>
              <td data-label="Size" class="number">{bytes(size)}</td>
              <td data-label="Made" class="nowrap">{time(created)}</td>
              <td class="actions">
                {!current && (
                  <>
                    <button type="button" class="quiet" onClick={() => use(version)}>
                      Use<span class="sr">{` ${version.slice(0, SHOWN)}`}</span>
                    </button>
                    <DeleteButton
                      name={`${id}@${version.slice(0, SHOWN)}`}
                      onConfirm={() => deleteModel(`${id}@${version.slice(0, SHOWN)}`).then(onChanged)}
                    />
                  </>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
