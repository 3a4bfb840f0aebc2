/** `pull`: a model of a hub into a folder. */
import { pull } from "../hub/pull.ts";
import { hubAccess } from "../hub/reference.ts";
import { megabytes, printResult, ProgressBar } from "./output.ts";

export interface PullCommandOptions {
  readonly revision: string;
  readonly file?: string;
  readonly out?: string;
  readonly maxBytes: number;
  readonly json?: boolean;
}

/** More are no model. */
const MAX_FILES = 512;

export async function pullCommand(repo: string, options: PullCommandOptions): Promise<void> {
  const { revision, file, maxBytes, out: folder = repo.split("/").at(-1)! } = options;
  const bar = new ProgressBar(), abort = new AbortController();
  const stop = () => abort.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    const access = hubAccess(Deno.env), { signal } = abort;
    const onProgress = (p: { readonly done: number; readonly total: number }) =>
      bar.show({ phase: "pull", ...p });
    const pulled = await pull({
      repo,
      revision,
      file,
      folder,
      access,
      maxBytes,
      maxFiles: MAX_FILES,
      signal,
      onProgress,
    });
    bar.end();
    const bytes = pulled.files.reduce((sum, f) => sum + f.bytes, 0);
    const result = { model: pulled.path, repo, revision, commit: pulled.commit, bytes, files: pulled.files };
    printResult(result, {
      json: options.json,
      lines: () => [
        `model        ${result.model}`,
        `commit       ${result.commit}`,
        `size         ${megabytes(bytes)}, ${pulled.files.length} files`,
      ],
    });
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}
