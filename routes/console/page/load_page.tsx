/** Load: a bounded benchmark of this server, watched while it runs, and earlier ones to compare with. */
import { useState } from "preact/hooks";
import { postJson } from "./api.ts";
import { LoadCharts } from "./load_charts.tsx";
import { LoadForm } from "./load_form.tsx";
import { LoadTable } from "./load_table.tsx";
import { Failure } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { List, Load, LoadSettings, Model } from "./types.ts";

const LIVE_MS = 500;
const LIST_MS = 3000;
/** More lines than these nobody tells apart. */
const MAX_SHOWN = 4;

export function LoadPage() {
  const models = useResource<List<Model>>("/v1/models");
  const list = useResource<List<Load>>("/v1/loads", { everyMs: LIST_MS });
  const [live, setLive] = useState<string | null>(null);
  const [chosen, setChosen] = useState<readonly string[]>([]);
  const [error, setError] = useState<unknown>(null);
  const runs = list.data?.data ?? [];
  const running = runs.find(({ status }) => status === "running")?.id ?? live;
  const start = async (settings: Partial<LoadSettings>) => {
    setError(null);
    try {
      const { id } = await postJson<Load>("/v1/loads", settings);
      setLive(id);
      setChosen([]);
      list.reload();
    } catch (caught) {
      setError(caught);
    }
  };
  const shown = chosen.length > 0 ? chosen : [running ?? runs[0]?.id].filter((id) => id !== undefined);
  const choose = (id: string) =>
    setChosen(shown.includes(id) ? shown.filter((one) => one !== id) : [...shown, id].slice(-MAX_SHOWN));
  return (
    <>
      <h1>Load</h1>
      <p class="muted">
        The client runs beside the server and takes some of its processor, and its requests take it from
        others. <code>oatmill bench load</code> from another machine measures more, and more exactly.
      </p>
      <Failure error={error ?? models.error ?? list.error} />
      {models.data && <LoadForm models={models.data.data} onStart={start} />}
      {running && <Live id={running} onEnd={list.reload} />}
      <Shown ids={shown} live={running} />
      {runs.length > 0 && <LoadTable runs={runs} shown={shown} onToggle={choose} />}
    </>
  );
}

/** How the one that runs goes, with the button that ends it. */
function Live({ id, onEnd }: { readonly id: string; readonly onEnd: () => void }) {
  const { data: run, error } = useResource<Load>(`/v1/loads/${id}`, { everyMs: LIVE_MS });
  const [failed, setFailed] = useState<unknown>(null);
  if (error) return <Failure error={error} />;
  if (run?.status !== "running") return null;
  const last = run.progress.at(-1);
  const cancel = () => postJson(`/v1/loads/${id}/cancel`, {}).then(onEnd, setFailed);
  return (
    <div class="row live">
      <progress aria-label="Load" max={1} value={last?.share ?? 0} />
      <span role="status">
        {!last || last.warming_up
          ? "Warming up"
          : `${last.requests} requests, ${last.errors} errors, ${last.in_flight} in flight`}
      </span>
      <button type="button" onClick={cancel}>Cancel</button>
      <Failure error={failed} />
    </div>
  );
}

/** Up to four runs in the same charts. */
function Shown({ ids, live }: { readonly ids: readonly string[]; readonly live: string | null }) {
  const of = (i: number) => ids[i] === undefined ? null : `/v1/loads/${ids[i]}`;
  const everyMs = (i: number) => ({ everyMs: ids[i] === live ? LIVE_MS : 0 });
  // As many calls whatever is chosen: hooks have a fixed order.
  const slots = [
    useResource<Load>(of(0), everyMs(0)),
    useResource<Load>(of(1), everyMs(1)),
    useResource<Load>(of(2), everyMs(2)),
    useResource<Load>(of(3), everyMs(3)),
  ];
  const runs = slots.map(({ data }) => data).filter((run) => run !== null);
  return runs.length === 0 ? null : <LoadCharts runs={runs} />;
}
