/** What a compression job's worker is asked to do, and how that is stored: a restarted server does it to the end. */
import { join } from "node:path";
import type { CompressProgress, CompressResult, CompressStep } from "../compress/types.ts";
import type { HubAccess, HubReference } from "../hub/reference.ts";
import type { Recipe } from "../models/recipe.ts";

export interface CompressTask {
  /** An archive to unpack first, or null. */
  readonly archive: string | null;
  /** A model of a hub to pull first. */
  readonly hub?: HubReference & { readonly access: HubAccess };
  /** Folder or file with the model; for an archive or a hub, the folder to make for it. */
  readonly source: string;
  readonly out: string;
  /** Folder for what is unfinished: the same task then goes on where it was stopped. Default: it begins anew. */
  readonly work?: string;
  readonly name: string;
  readonly recipe: Recipe;
  readonly maxBytes: number;
  readonly maxFiles: number;
}
export interface TaskOptions {
  /** Ends the task; with the reason {@linkcode AT_ONCE} without letting it end its step. */
  readonly signal: AbortSignal;
  /** Ends a recovery that is under way; the task goes on with the best so far. */
  readonly stop?: AbortSignal;
  readonly onProgress: (p: CompressProgress) => void;
  readonly onStep?: (step: CompressStep) => void;
}
export type RunTask = (task: CompressTask, options: TaskOptions) => Promise<CompressResult>;

/** The server stops: what is under way goes on at its next start. */
export const AT_ONCE = "at once";

/** What a job is submitted with; the rest follows from its folder and its model's name. */
export type JobTask = Omit<CompressTask, "out" | "work" | "name">;

/** A job's files in its folder. */
export const sourceIn = (folder: string): string => join(folder, "source");

/**
 * A task for the database: paths are those among the job's files, and there is no token.
 * @param folder with the files, until the job has them
 */
export function storedTask(task: JobTask, folder: string): JobTask {
  const { hub, ...moved } = withPaths(task, (path) => movedPath(path, folder, "."));
  return hub ? { ...moved, hub: { ...hub, access: { ...hub.access, token: null } } } : moved;
}

/** The same for a job with this folder. @param access what the server has: its token is for its own hub alone */
export function taskIn(
  stored: JobTask,
  { folder, model, access }: { readonly folder: string; readonly model: string; readonly access: HubAccess },
): CompressTask {
  const { hub, ...task } = withPaths(stored, (path) => movedPath(path, ".", sourceIn(folder)));
  return {
    ...task,
    ...hub && { hub: hub.access.url === access.url ? { ...hub, access } : hub },
    ...placesIn(folder),
    name: model,
  };
}

/** Where a job's artifact comes to stand, and its work before. */
export const placesIn = (folder: string): Pick<Required<CompressTask>, "out" | "work"> => ({
  out: join(folder, "artifact"),
  work: join(folder, "work"),
});

function withPaths(task: JobTask, move: (path: string) => string): JobTask {
  const { archive, source, recipe } = task, { calibration, evaluate, recover } = recipe;
  return {
    ...task,
    archive: archive && move(archive),
    source: move(source),
    recipe: {
      ...recipe,
      calibration: { ...calibration, text: move(calibration.text) },
      evaluate: { ...evaluate, text: evaluate.text && move(evaluate.text) },
      recover: recover && { ...recover, text: recover.text && move(recover.text) },
    },
  };
}

/** What is no path in `from` ("self") stays. */
const movedPath = (path: string, from: string, to: string): string =>
  path === from || path.startsWith(`${from}/`) ? to + path.slice(from.length) : path;
