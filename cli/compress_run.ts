/** What `compress` and `recover` have in common: their hidden folder, Ctrl-C, progress. */
import { join, resolve } from "node:path";
import { isTraining } from "../compress/recovery/is_training.ts";
import { workFolderOf } from "../compress/resume/work_folder.ts";
import type { CompressOptions, CompressResult, FoundWork } from "../compress/types.ts";
import { OatmillError } from "../errors.ts";
import { note, ProgressBar } from "./output.ts";
import { SOURCE_NOTE } from "./source_note.ts";

export interface RunFlags {
  readonly out: string;
  /** Go on where an earlier run stopped. */
  readonly resume: boolean;
  /** MiB */
  readonly workMemory?: number;
  readonly threads?: number;
}

export type RunOptions = Pick<
  CompressOptions,
  "source" | "out" | "work" | "threads" | "workMemoryBytes" | "onResume" | "signal" | "stop" | "onProgress"
>;

/**
 * Works in a hidden folder beside the artifact, which goes with a success, and with an error that would come again. What
 * stopped a run from outside (Ctrl-C, a crash, a full disk) leaves it: the same command then goes on from there.
 */
export async function runInFolder(
  source: string,
  { out, resume, workMemory, threads }: RunFlags,
  run: (options: RunOptions) => Promise<CompressResult>,
): Promise<CompressResult> {
  const work = workFolderOf(out), bar = new ProgressBar();
  if (!resume) await Deno.remove(work, { recursive: true }).catch(() => {});
  using interrupts = new Interrupts(work);
  try {
    const result = await run({
      source,
      out,
      work,
      threads,
      workMemoryBytes: workMemory === undefined ? undefined : workMemory * 2 ** 20,
      onResume: noteResumed,
      signal: interrupts.abort.signal,
      stop: interrupts.stop.signal,
      onProgress: (p) => {
        interrupts.trains = isTraining(p, interrupts.trains);
        bar.show(p);
      },
    });
    bar.end();
    await Deno.writeTextFile(join(out, SOURCE_NOTE), resolve(source));
    await Deno.remove(work, { recursive: true });
    return result;
  } catch (error) {
    if (!await exists(work)) throw error;
    if (endsWork(error)) await Deno.remove(work, { recursive: true });
    else note(keptIn(work));
    throw error;
  }
}

/** Codes of errors that say nothing of the source or the recipe. */
const STOPS: readonly string[] = ["cancelled", "storage_failed", "conflict"];
const endsWork = (error: unknown): boolean => error instanceof OatmillError && !STOPS.includes(error.code);

const exists = (path: string): Promise<boolean> => Deno.stat(path).then(() => true, () => false);

const keptIn = (work: string): string =>
  `What is finished is kept in "${work}": the same command goes on from there, --no-resume anew`;

function noteResumed({ resumed, why }: FoundWork): void {
  note(resumed ? "Going on where an earlier run stopped" : `Beginning anew: an earlier run was of ${why}`);
}

/** As the shell has it for programs that Ctrl-C ended. */
const INTERRUPTED = 130;

/** The first Ctrl-C ends a recovery with the best so far, anything else soon; the second one ends the program. */
class Interrupts implements Disposable {
  readonly abort = new AbortController();
  readonly stop = new AbortController();
  trains = false;
  #times = 0;
  readonly #listener = () => this.#hear();

  constructor(readonly work: string) {
    Deno.addSignalListener("SIGINT", this.#listener);
  }

  #hear(): void {
    if (++this.#times > 1) {
      note(keptIn(this.work));
      Deno.exit(INTERRUPTED);
    }
    if (this.trains) {
      note("Ending the recovery with the best so far; once more Ctrl-C ends at once");
      this.stop.abort();
    } else this.abort.abort();
  }

  [Symbol.dispose](): void {
    Deno.removeSignalListener("SIGINT", this.#listener);
  }
}
