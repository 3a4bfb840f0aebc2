/** One compression: what it does now, how far it is, what it lost so far; when it is done, what it made. */
import { useEffect, useState } from "preact/hooks";
import { postJson, request } from "./api.ts";
import { Chart } from "./chart.tsx";
import { bytes, digits, duration, percent, time } from "./format.ts";
import { isOver, type LiveJob, type Progress, progressOf, useJob } from "./job_events.ts";
import { JobState } from "./job_list.tsx";
import { LayerCharts } from "./layer_charts.tsx";
import { change, modelLink } from "./models_page.tsx";
import { type Fact, Facts, Failure, Loading } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { Job, JobEvent, Model } from "./types.ts";

export function JobPage({ id }: { readonly id: string }) {
  const [turn, setTurn] = useState(0);
  const live = useJob(id, turn);
  const { job, events, error } = live;
  return (
    <>
      <p class="crumbs">
        <a href="#/compress">Compress</a>
      </p>
      <div class="title">
        <h1>{job?.model ?? id}</h1>
        {job && <Actions job={job} onChanged={() => setTurn((n) => n + 1)} />}
      </div>
      <Failure error={error} retry={() => setTurn((n) => n + 1)} />
      {!job && !error && <Loading />}
      {job && (
        <>
          {job.error && <p class="notice bad" role="alert">{job.error.message}</p>}
          <Now live={live} />
          <Phases job={job} events={events} />
          {job.status === "succeeded" && <Result job={job} />}
          {isOver(job) && <UploadedFiles job={job} />}
          <Events events={events} />
        </>
      )}
    </>
  );
}

function Actions({ job, onChanged }: { readonly job: Job; readonly onChanged: () => void }) {
  const [error, setError] = useState<unknown>(null);
  const cancel = () => postJson(`/v1/compressions/${job.id}/cancel`, {}).then(onChanged, setError);
  const retry = () => postJson(`/v1/compressions/${job.id}/retry`, {}).then(onChanged, setError);
  const failed = job.status === "failed" || job.status === "cancelled";
  return (
    <div class="actions">
      <Failure error={error} />
      {!isOver(job) && <button type="button" onClick={cancel}>Cancel</button>}
      {failed && <button type="button" class="solid" onClick={retry}>Try again</button>}
      {job.status === "succeeded" && <a class="button" href={modelLink(job.model)}>Open the model</a>}
    </div>
  );
}

function Now({ live: { job, events } }: { readonly live: LiveJob }) {
  const now = useSeconds(!isOver(job!));
  const phases = phasesOf(events), phase = phases.at(-1);
  const { status, started_at: from, finished_at: to } = job!;
  const told = events.map(progressOf).filter((p) => p !== null);
  const loss = told.findLast((p) => p.loss !== null && p.phase !== "recover")?.loss ?? null;
  const eta = phase?.last.eta_seconds ?? null;
  const state = <JobState job={{ ...job!, progress: phase?.last ?? null }} />;
  const facts: Fact[] = [
    ["State", state],
    ["Step", phase ? `${phase.last.phase} ${phase.last.done} of ${phase.last.total}` : "–"],
    ...phase?.last.phase === "recover" ? recoveryFacts(phase.last) : [
      ["Mean error of layers", loss === null ? "–" : percent(loss)] as Fact,
    ],
    ["Running for", from === null ? "–" : duration(Math.max(0, (to ?? now) - from))],
    ["Left", status === "running" && eta !== null ? `about ${duration(eta)}` : "–"],
  ];
  return <Facts label="Now" facts={facts} />;
}

function recoveryFacts({ loss, tokens_per_second: speed }: Progress): Fact[] {
  return [
    ["Loss of the last step", loss === null ? "–" : digits(loss)],
    ["Speed", speed ? `${digits(speed)} tokens/s` : "–"],
  ];
}

/** Seconds since 1970, moving on while it matters. */
function useSeconds(running: boolean): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}

interface Phase {
  readonly last: Progress;
  readonly from: number;
  to: number;
}
function phasesOf(events: readonly JobEvent[]): Phase[] {
  const phases = new Map<string, Phase>();
  for (const event of events) {
    const progress = progressOf(event);
    if (!progress) continue;
    const from = phases.get(progress.phase)?.from ?? event.created_at;
    phases.set(progress.phase, { last: progress, from, to: event.created_at });
  }
  return [...phases.values()].sort((a, b) => a.to - b.to);
}

function Phases({ job, events }: { readonly job: Job; readonly events: readonly JobEvent[] }) {
  const steps = events.map(progressOf).filter((p) =>
    p?.phase === "compress" && p.loss !== null
  ) as Progress[];
  const trained = events.map(progressOf).filter((p) =>
    p?.phase === "recover" && p.loss !== null
  ) as Progress[];
  const byBlock = [...new Map(steps.map((p) => [p.done, p.loss!]))].sort(([a], [b]) => a - b);
  const phases = phasesOf(events);
  return (
    <div class="charts">
      <section class="chart" aria-label="Steps">
        <table>
          <thead>
            <tr>
              <th scope="col">Step</th>
              <th scope="col">Done</th>
              <th scope="col" class="number">Took</th>
            </tr>
          </thead>
          <tbody>
            {phases.length === 0 && (
              <tr>
                <td colSpan={3} class="muted">{job.status === "queued" ? "Waits for its turn" : "Begins"}</td>
              </tr>
            )}
            {phases.map(({ last: { phase, done, total }, from, to }) => (
              <tr key={phase}>
                <th scope="row">{phase}</th>
                <td>
                  <progress max={total} value={done} aria-label={`${phase}: ${done} of ${total}`} />
                </td>
                <td class="number">{to > from ? duration(to - from) : "under 1 s"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {byBlock.length > 0 && (
        <Chart
          title="Mean error of layers so far"
          about="After each block"
          x={{ label: "Blocks done", values: byBlock.map(([done]) => done) }}
          series={[{ label: "error", values: byBlock.map(([, error]) => error) }]}
          format={percent}
          wholeX
          leastTop={0}
        />
      )}
      {trained.length > 1 && (
        <Chart
          title="Loss of the recovery"
          about="Of the last step"
          x={{ label: "Done", values: trained.map(({ done }) => done) }}
          series={[{ label: "loss", values: trained.map(({ loss }) => loss!) }]}
          format={digits}
          wholeX
          leastTop={0}
        />
      )}
    </div>
  );
}

interface JobResult {
  readonly bytes: number;
  readonly dense_bytes: number;
  readonly perplexity: { readonly dense: number; readonly compressed: number } | null;
  readonly recovery?: { readonly perplexity: { readonly before: number } | null };
}
function Result({ job }: { readonly job: Job }) {
  const model = useResource<Model>(`/v1/models/${encodeURIComponent(job.model)}`);
  const { bytes: packed, dense_bytes: dense, perplexity: p, recovery } = job.result as JobResult;
  const before = recovery?.perplexity?.before;
  const facts: Fact[] = [
    ["Size, dense f16", bytes(dense)],
    ["Size, compressed", bytes(packed), percent(packed / dense)],
    ["Perplexity, dense", p ? digits(p.dense) : "–"],
    ...before === undefined ? [] : [["Perplexity, before recovery", digits(before)] as Fact],
    [
      "Perplexity, compressed",
      p ? digits(p.compressed) : "–",
      p ? change(p.compressed / p.dense) : undefined,
    ],
    ["Made", time(job.finished_at!)],
  ];
  return (
    <section aria-labelledby="result">
      <h2 id="result">Result</h2>
      <Facts label="Result" facts={facts} />
      {model.data && <LayerCharts model={model.data} />}
    </section>
  );
}

function Events({ events }: { readonly events: readonly JobEvent[] }) {
  return (
    <section>
      <details>
        <summary>{events.length} events</summary>
        <ol class="events">
          {events.map((event) => (
            <li key={event.id}>
              <time class="muted">{new Date(event.created_at * 1000).toLocaleTimeString("en-GB")}</time>{" "}
              {event.message}
            </li>
          ))}
        </ol>
      </details>
    </section>
  );
}

/** They stay on the server for other recipes until somebody deletes them. */
function UploadedFiles({ job: { files } }: { readonly job: Job }) {
  const [gone, setGone] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const stored = useResource<{ readonly data: readonly { readonly id: string; readonly bytes: number }[] }>(
    "/v1/files",
  );
  const kept = (stored.data?.data ?? []).filter(({ id }) => files.some((file) => file.id === id));
  if (gone) return <p class="muted" role="status">The uploaded files are deleted.</p>;
  if (kept.length === 0) return null;
  const remove = async () => {
    try {
      for (const { id } of kept) await request(`/v1/files/${id}`, { method: "DELETE" });
      setGone(true);
    } catch (caught) {
      setError(caught);
      stored.reload();
    }
  };
  return (
    <section>
      <Failure error={error} />
      <p>
        The uploaded files ({bytes(kept.reduce((sum, file) => sum + file.bytes, 0))}) are kept for other
        recipes. <button type="button" onClick={remove}>Delete them</button>
      </p>
    </section>
  );
}
