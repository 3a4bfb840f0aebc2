/**
 * The folders of compression jobs, `jobs/J/` of the data folder: a job's files, its work (compress/resume/work_folder.ts) and
 * its artifact until that is a model's. Jobs that are not over keep theirs, and the last few that failed or were cancelled,
 * to be tried again.
 */
import { asStorageError, type DataFolder, removeTree } from "../store/data_folder.ts";
import type { JobStore } from "../store/job_store.ts";
import type { ModelStore } from "../store/model_store.ts";
import { placesIn, sourceIn } from "./compress_task.ts";

/** Of jobs that failed or were cancelled, the newest. */
const KEPT_ENDED = 3;

export class JobFolders {
  constructor(readonly data: DataFolder, readonly jobs: JobStore) {}

  path(id: string): string {
    return this.data.jobPath(id);
  }
  has(id: string): boolean {
    return isThere(this.path(id));
  }
  /**
   * Makes a folder of `tmp/` that of the job's files while `add` makes its row: both, or neither.
   * @throws {OatmillError} storage_failed
   */
  take<T>(id: string, folder: string, add: () => T): T {
    const own = this.path(id), source = sourceIn(own);
    try {
      Deno.mkdirSync(own);
      Deno.renameSync(folder, source);
      try {
        return add();
      } catch (error) {
        Deno.renameSync(source, folder);
        Deno.removeSync(own);
        throw error;
      }
    } catch (error) {
      throw asStorageError(error, "queue the compression");
    }
  }
  async remove(id: string): Promise<void> {
    await removeTree(this.path(id));
  }
  /** Deletes what no job needs, or will need. */
  async tidy(): Promise<void> {
    const kept = this.#kept(); // asking anew for each of a long queue would hold the HTTP thread
    await this.data.removeJobs((id) => !kept.has(id) && !this.#kept().has(id));
  }
  #kept(): ReadonlySet<string> {
    const underWay = this.jobs.list({ limit: -1, states: ["queued", "running"] });
    const ended = this.jobs.list({ limit: -1, states: ["failed", "cancelled"] })
      .sort((a, b) => (b.finishedMs ?? 0) - (a.finishedMs ?? 0)).slice(0, KEPT_ENDED);
    return new Set([...underWay, ...ended].map(({ id }) => id));
  }
}

/**
 * Gives jobs back what was renamed to be a model's and has no row, as a crash between the two leaves it. To be called before
 * folders that no model owns are deleted.
 */
export async function returnArtifacts(data: DataFolder, jobs: JobStore, models: ModelStore): Promise<void> {
  const owned = new Set(models.all().map(({ folder }) => folder));
  for (const { id } of jobs.list({ limit: -1, states: ["queued", "running"] })) {
    const published = data.modelPath(id);
    if (owned.has(id) || !isThere(published) || !isThere(data.jobPath(id))) continue;
    await Deno.rename(published, placesIn(data.jobPath(id)).out);
  }
}

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
