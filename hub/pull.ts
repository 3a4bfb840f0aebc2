/** `pull()`: a model of a hub into a folder. */
import { join } from "node:path";
import { HubClient } from "./client.ts";
import { asStorageError } from "../store/data_folder.ts";
import { chooseFiles } from "./choose_files.ts";
import { download } from "./download.ts";
import { checkReference, DEFAULT_REVISION, type HubAccess, type HubReference } from "./reference.ts";

export interface PullOptions extends HubReference {
  readonly access: HubAccess;
  /** Made when it is not there. */
  readonly folder: string;
  readonly maxBytes: number;
  readonly maxFiles: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
  /** Before the first new attempt at a file whose download broke; tests do not wait. */
  readonly retryMs?: number;
}

export interface Pulled {
  /** The folder, or the .gguf file in it. */
  readonly path: string;
  /** The commit that was pulled. */
  readonly commit: string;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

const RETRY_MS = 500;

/**
 * May be called again after a failure, for the same folder: what is there is not fetched again.
 * @throws {OatmillError} invalid_request, source_not_found, hub_unavailable, unsupported_format, too_large, storage_failed, cancelled
 */
export async function pull(options: PullOptions): Promise<Pulled> {
  const { repo, revision = DEFAULT_REVISION, folder, access, signal, onProgress } = options;
  checkReference(options);
  const client = new HubClient(access, repo, signal);
  const commit = await client.commit(revision);
  const files = chooseFiles(await client.files(commit), options);
  await makeFolder(folder);
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let before = 0;
  for (const file of files) {
    const onBytes = (bytes: number) => onProgress?.({ done: before + bytes, total });
    await download(client, file, { folder, commit, retryMs: options.retryMs ?? RETRY_MS, onBytes });
    before += file.bytes;
  }
  const [first] = files, single = files.length === 1 && first.name.endsWith(".gguf");
  return {
    path: single ? join(folder, first.name) : folder,
    commit,
    files: files.map(({ name, bytes }) => ({ name, bytes })),
  };
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await Deno.mkdir(folder, { recursive: true });
  } catch (error) {
    throw asStorageError(error, "make a folder for the model");
  }
}
