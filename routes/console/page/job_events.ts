/** A job as it goes on: its events as they come, joined again after every lost connection. */
import { useEffect, useState } from "preact/hooks";
import { ApiError, getJson, request } from "./api.ts";
import { eventData } from "./event_stream.ts";
import type { Job, JobEvent } from "./types.ts";

const REJOIN_MS = 2000;

export interface LiveJob {
  readonly job: Job | null;
  readonly events: readonly JobEvent[];
  readonly error: ApiError | null;
}

export const isOver = ({ status }: Job): boolean => status !== "queued" && status !== "running";

export function useJob(id: string, turn: number): LiveJob {
  const [live, setLive] = useState<LiveJob>({ job: null, events: [], error: null });
  useEffect(() => {
    const abort = new AbortController();
    follow(id, abort.signal, (change) => setLive((now) => ({ ...now, ...change(now) })));
    return () => abort.abort();
  }, [id, turn]);
  return live;
}

type Change = (apply: (now: LiveJob) => Partial<LiveJob>) => void;

/** Until the job is over. */
async function follow(id: string, signal: AbortSignal, change: Change): Promise<void> {
  const path = `/v1/compressions/${id}`;
  let after = 0;
  change(() => ({ events: [], error: null }));
  while (!signal.aborted) {
    try {
      const stream = await request(`${path}/events?stream=true&after=${after}`, { signal });
      for await (const event of eventData<JobEvent>(stream)) {
        after = Number(event.id);
        change((now) => ({ events: [...now.events, event], error: null }));
        if (!progressOf(event)) await loadJob(path, signal, change);
      }
      if ((await loadJob(path, signal, change)).finished_at !== null) return;
    } catch (error) {
      if (signal.aborted) return;
      change(() => ({ error: error as ApiError }));
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) return;
    }
    await new Promise((done) => setTimeout(done, REJOIN_MS));
  }
}

async function loadJob(path: string, signal: AbortSignal, change: Change): Promise<Job> {
  const job = await getJson<Job>(path, { signal });
  change(() => ({ job }));
  return job;
}

export type Progress = NonNullable<Job["progress"]>;
export const progressOf = ({ data }: JobEvent): Progress | null =>
  (data as { progress?: Progress } | null)?.progress ?? null;
