/** What the server is doing: queue, KV blocks, memory, threads, and the kernels that were chosen for this machine. */
import { useEffect, useState } from "preact/hooks";
import { Chart } from "./chart.tsx";
import { bytes, digits, duration, integer, percent, time } from "./format.ts";
import { type Fact, Facts, Failure, Loading } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { Job, List, Status } from "./types.ts";

const EVERY_MS = 2000;
/** Five minutes. */
const KEPT = 150;

interface Point {
  /** Seconds since the page was opened. */
  readonly at: number;
  readonly running: number;
  readonly waiting: number;
  readonly kvShare: number | null;
  readonly memory: number;
}

export function StatusPage() {
  const { data: status, error, reload } = useResource<Status>("/v1/status", { everyMs: EVERY_MS });
  const jobs = useResource<List<Job>>("/v1/compressions?limit=100", { everyMs: EVERY_MS });
  const history = useHistory(status);
  return (
    <>
      <h1>Status</h1>
      <Failure error={error} retry={reload} />
      {!status && !error && <Loading />}
      {status && (
        <>
          {status.not_ready && <p class="notice bad" role="alert">Not ready: {status.not_ready}</p>}
          <Overview status={status} jobs={jobs.data?.data ?? []} />
          <History points={history} />
          <Loaded status={status} />
          <Kernels status={status} />
        </>
      )}
    </>
  );
}

/** At least a minute, so that the first points are not a page wide. */
const lastMinute = (least: number): [number, number] => [Math.min(-60, least), 0];

function useHistory(status: Status | null): readonly Point[] {
  const [points, setPoints] = useState<readonly Point[]>([]);
  useEffect(() => {
    if (status) setPoints((past) => [...past.slice(-KEPT + 1), pointOf(status)]);
  }, [status]);
  return points;
}

function pointOf({ models, memory }: Status): Point {
  const sum = (value: (m: Status["models"][number]) => number) =>
    models.reduce((all, m) => all + value(m), 0);
  const blocks = sum((m) => m.kv_blocks.total);
  return {
    at: performance.now() / 1000,
    running: sum((m) => m.running),
    waiting: sum((m) => m.waiting),
    kvShare: blocks === 0 ? null : sum((m) => m.kv_blocks.used) / blocks,
    memory: memory.process_bytes,
  };
}

function Overview({ status, jobs }: { readonly status: Status; readonly jobs: readonly Job[] }) {
  const { memory, models } = status;
  const inState = (state: Job["status"]) => jobs.filter((j) => j.status === state).length;
  const running = models.reduce((sum, m) => sum + m.running, 0);
  const waiting = models.reduce((sum, m) => sum + m.waiting, 0);
  const facts: Fact[] = [
    ["Version", status.version],
    ["Running for", duration(Date.now() / 1000 - status.started_at), `since ${time(status.started_at)}`],
    ["Generations", `${running} running`, `${waiting} waiting`],
    ["Compressions", `${inState("running")} running`, `${inState("queued")} waiting`],
    ["Memory of the process", bytes(memory.process_bytes)],
    ["Memory of the machine", bytes(memory.machine_bytes), `${bytes(memory.available_bytes)} free`],
    ["Cores", String(status.cores)],
  ];
  return <Facts label="The server" facts={facts} />;
}

function History({ points }: { readonly points: readonly Point[] }) {
  const last = points.at(-1)?.at ?? 0;
  const x = { label: "Seconds ago", values: points.map(({ at }) => Math.round((at - last) * 10) / 10) };
  const values = (of: (p: Point) => number | null) => points.map(of);
  return (
    <section aria-labelledby="history">
      <h2 id="history">Last five minutes</h2>
      <div class="charts three">
        <Chart
          title="Generations"
          x={x}
          rangeX={lastMinute}
          series={[{ label: "running", values: values((p) => p.running) }, {
            label: "waiting",
            values: values((p) => p.waiting),
          }]}
          leastTop={1}
        />
        <Chart
          title="KV blocks in use"
          x={x}
          rangeX={lastMinute}
          series={[{ label: "used", values: values((p) => p.kvShare) }]}
          format={percent}
          leastTop={0.1}
        />
        <Chart
          title="Memory of the process"
          x={x}
          rangeX={lastMinute}
          series={[{ label: "resident", values: values((p) => p.memory) }]}
          format={bytes}
          leastTop={1e8}
        />
      </div>
    </section>
  );
}

function Loaded({ status: { models, speeds } }: { readonly status: Status }) {
  const speedOf = (id: string) => speeds.find(({ model }) => model === id)?.tokens_per_second;
  return (
    <section aria-labelledby="loaded">
      <h2 id="loaded">Models in memory</h2>
      {models.length === 0 && <p class="muted">None: a model is loaded at its first request.</p>}
      {models.length > 0 && (
        <table class="cards">
          <thead>
            <tr>
              {[
                "Model",
                "Running",
                "Waiting",
                "KV blocks",
                "Cached",
                "Prefix hits",
                "Drafts right",
                "Tokens/s",
                "Threads",
                "Memory",
              ]
                .map((name, i) => (
                  <th key={name} scope="col" class={i > 0 ? "number" : undefined}>{name}</th>
                ))}
            </tr>
          </thead>
          <tbody>
            {models.map((m) => (
              <tr key={m.id}>
                <th scope="row" data-label="Model">{m.id}</th>
                <td data-label="Running" class="number">{m.running}</td>
                <td data-label="Waiting" class="number">{m.waiting}</td>
                <td data-label="KV blocks" class="number">
                  {integer(m.kv_blocks.used)} of {integer(m.kv_blocks.total)}
                </td>
                <td data-label="Cached" class="number">{integer(m.kv_blocks.cached)}</td>
                <td data-label="Prefix hits" class="number">
                  {share(m.prefix_cache.hits, m.prefix_cache.queries)}
                </td>
                <td data-label="Drafts right" class="number">
                  {share(m.speculation.accepted, m.speculation.drafted)}
                </td>
                <td data-label="Tokens/s" class="number">{shownSpeed(speedOf(m.id))}</td>
                <td data-label="Threads" class="number">{m.threads}</td>
                <td data-label="Memory" class="number">{bytes(m.memory_bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
const share = (part: number, all: number): string => all === 0 ? "–" : percent(part / all);
const shownSpeed = (speed: number | undefined): string => speed === undefined ? "–" : digits(speed);

function Kernels({ status: { kernels } }: { readonly status: Status }) {
  return (
    <section aria-labelledby="kernels">
      <h2 id="kernels">Kernels chosen for this machine</h2>
      {kernels.length === 0 && (
        <p class="muted">Nothing was measured: every kernel is the first of its kind.</p>
      )}
      {kernels.length > 0 && (
        <table class="cards">
          <thead>
            <tr>
              <th scope="col">Weights</th>
              <th scope="col">Measured on</th>
              <th scope="col">One row (decode)</th>
              <th scope="col">Several (prefill)</th>
            </tr>
          </thead>
          <tbody>
            {kernels.map((k) => (
              <tr key={k.weights}>
                <th scope="row" data-label="Weights">{k.weights}</th>
                <td data-label="Measured on">
                  <code>{k.format}</code>
                </td>
                <td data-label="One row (decode)">
                  <code>{k.decode}</code>
                </td>
                <td data-label="Several (prefill)">
                  <code>{k.batched}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
