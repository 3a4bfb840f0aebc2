/** The compression jobs there are, newest first. */
import { duration, percent, time } from "./format.ts";
import { Failure } from "./parts.tsx";
import { useResource } from "./resource.ts";
import type { Job, List } from "./types.ts";

const EVERY_MS = 3000;

export const jobLink = (id: string): string => `#/compress/${id}`;

export function JobList() {
  const { data, error, reload } = useResource<List<Job>>("/v1/compressions?limit=20", { everyMs: EVERY_MS });
  return (
    <section aria-labelledby="jobs">
      <h2 id="jobs">Jobs</h2>
      <Failure error={error} retry={reload} />
      {data?.data.length === 0 && <p class="muted">None yet.</p>}
      {data && data.data.length > 0 && (
        <table class="cards">
          <thead>
            <tr>
              <th scope="col">Model</th>
              <th scope="col">State</th>
              <th scope="col">Method</th>
              <th scope="col">Began</th>
              <th scope="col" class="number">Took</th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((job) => (
              <tr key={job.id}>
                <th scope="row" data-label="Model">
                  <a href={jobLink(job.id)}>{job.model}</a>
                </th>
                <td data-label="State">
                  <JobState job={job} />
                </td>
                <td data-label="Method">{job.recipe.method}</td>
                <td data-label="Began">{time(job.started_at ?? job.created_at)}</td>
                <td data-label="Took" class="number">{took(job)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

export function JobState({ job: { status, progress } }: { readonly job: Job }) {
  const at = status === "running" && progress && progress.total > 0
    ? `: ${progress.phase} ${percent(progress.done / progress.total)}`
    : "";
  return <span class={`state ${status}`}>{status}{at}</span>;
}

const took = ({ started_at: from, finished_at: to }: Job): string =>
  from === null || to === null ? "–" : duration(to - from);
