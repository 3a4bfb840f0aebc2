/**
 * Cold start: the server's own process, with the permissions of `deno task start`, from its start to the first token of an
 * artifact that the file cache holds; beside it, turn by turn, how fast the same file is read without an engine.
 */
import { join, resolve } from "node:path";
import { openArtifact, WEIGHTS_FILE } from "../models/formats/artifact.ts";
import { artifactVersion } from "../models/formats/artifact_version.ts";
import { modelInfo } from "../routes/model_info.ts";
import { DataFolder } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { ModelStore } from "../store/model_store.ts";
import { denoCommand, ROOT, taskPermissions } from "./_own_process.ts";
import { median, type Spread, spread } from "./spread.ts";

export interface BenchStartOptions {
  readonly repeats: number;
  readonly threads?: number;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Milliseconds since the process was started, but for the parts of the model's load (`model_*`), which overlap. */
export interface StartRun {
  /** Modules imported, as the process itself counts: without the ~25 ms until Deno's clock starts. */
  readonly imports_ms: number;
  /** A connection is accepted. */
  readonly listening_ms: number;
  /** The first token of the first request, which waits for the model. */
  readonly first_token_ms: number;
  readonly model_ms: number;
  readonly model_header_ms: number;
  readonly model_threads_ms: number;
  readonly model_weights_ms: number;
  readonly model_tokenizer_ms: number;
  readonly model_kernels_ms: number;
  readonly model_tables_ms: number;
  readonly model_ready_ms: number;
  /** Loading the weights. */
  readonly load_mb_per_second: number;
  /** The same file, one thread, into memory of its size that was touched before: what an engine's memory cannot be. */
  readonly plain_mb_per_second: number;
  /** The same into one buffer of 1 MiB: nothing leaves the processor's cache. */
  readonly cache_mb_per_second: number;
  readonly load_share_of_plain: number;
  readonly load_share_of_cache: number;
}
export interface BenchStartReport {
  readonly artifact: string;
  readonly weights_bytes: number;
  readonly repeats: number;
  readonly median: StartRun;
  readonly spread: Readonly<Record<keyof StartRun, Spread>>;
}

const MODEL = "bench";
const BUFFER_BYTES = 1 << 20;
/** Between two attempts to connect. */
const POLL_MS = 3;

/** @throws {OatmillError} invalid_artifact */
export async function benchStart(path: string, options: BenchStartOptions): Promise<BenchStartReport> {
  const artifact = resolve(path);
  const data = await Deno.makeTempDir({ prefix: "oatmill-bench-" });
  try {
    await linkModel(artifact, data);
    const runs: StartRun[] = [];
    // The first start is not counted: it fills the file cache and checks the weights' hash if nobody has.
    for (let i = 0; i <= options.repeats; i++) {
      const run = await startOnce(artifact, data, options.threads);
      if (i > 0) runs.push(run);
      options.onProgress?.(i + 1, options.repeats + 1);
    }
    const keys = Object.keys(runs[0]) as (keyof StartRun)[];
    const of = <T>(f: (values: number[]) => T) =>
      Object.fromEntries(keys.map((k) => [k, f(runs.map((r) => r[k]))])) as Record<keyof StartRun, T>;
    const { size } = await Deno.stat(join(artifact, WEIGHTS_FILE));
    return {
      artifact,
      weights_bytes: size,
      repeats: options.repeats,
      median: of(median),
      spread: of(spread),
    };
  } finally {
    await Deno.remove(data, { recursive: true });
  }
}

/** A data folder whose one model is the artifact itself, not a copy. */
async function linkModel(artifact: string, path: string): Promise<void> {
  const { header } = await openArtifact(artifact);
  using data = await DataFolder.open(path);
  using database = openDatabase(data.database);
  await Deno.symlink(artifact, data.modelPath(MODEL));
  const version = artifactVersion(header), info = modelInfo(header);
  new ModelStore(database).add({ id: MODEL, version, folder: MODEL, createdMs: Date.now(), info });
}

async function startOnce(artifact: string, data: string, threads?: number): Promise<StartRun> {
  const weights = join(artifact, WEIGHTS_FILE);
  const cache = readRate(weights, new Uint8Array(BUFFER_BYTES));
  const { size } = await Deno.stat(weights);
  const plain = readRate(weights, new Uint8Array(size).fill(1));
  const port = freePort();
  const permissions = taskPermissions("start").filter((word) => !/^--allow-(read|write)/.test(word));
  const args = ["run", "--no-prompt", ...permissions, `--allow-read=.,${data},${artifact}`];
  args.push(`--allow-write=${data},${artifact}`, "main.ts", "serve", "--no-bundled", "--preload", MODEL);
  args.push("--data", data, "--host", "127.0.0.1", "--port", String(port));
  if (threads !== undefined) args.push("--threads", String(threads));
  const start = performance.now();
  const child = new Deno.Command(denoCommand(), { cwd: ROOT, args, stdout: "null", stderr: "piped" }).spawn();
  const log = new Response(child.stderr).text();
  let times;
  try {
    times = await firstToken(port, start, child.status);
  } catch (cause) {
    stop(child);
    throw new Error(`${(cause as Error).message}. It said:\n${await log}`, { cause });
  } finally {
    stop(child);
    await child.status;
  }
  return { ...times, ...phases(await log), ...rates(await log, { cache, plain }) };
}

/** Waits for the port, asks for one token and says when both came. */
async function firstToken(
  port: number,
  start: number,
  ended: Promise<Deno.CommandStatus>,
): Promise<Pick<StartRun, "listening_ms" | "first_token_ms">> {
  let over = false;
  ended.then(() => over = true);
  while (!await accepts(port)) {
    if (over) throw new Error("The server ended before it listened");
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
  const listening = performance.now() - start;
  const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: MODEL, prompt: "Once upon a time", max_tokens: 1, temperature: 0 }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`The server answered ${response.status}: ${text}`);
  return { listening_ms: listening, first_token_ms: performance.now() - start };
}

async function accepts(port: number): Promise<boolean> {
  try {
    (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    return true;
  } catch {
    return false;
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function stop(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGTERM");
  } catch {
    // It has ended.
  }
}

type Line = Readonly<Record<string, number>> & { readonly message?: string };

/** The server's log line with this message. */
function line(log: string, message: string): Line {
  const lines = log.split("\n").filter((l) => l.startsWith("{")).map((l): Line => JSON.parse(l));
  const found = lines.find((l) => l.message === message);
  if (!found) throw new Error(`The server did not say "${message}": ${log}`);
  return found;
}

function phases(log: string): Omit<StartRun, "listening_ms" | "first_token_ms" | RateKey> {
  const load = line(log, "model loaded");
  return {
    imports_ms: line(log, "ready").imports_ms,
    model_ms: load.ms,
    model_header_ms: load.header_ms,
    model_threads_ms: load.threads_ms,
    model_weights_ms: load.weights_ms,
    model_tokenizer_ms: load.tokenizer_ms ?? 0,
    model_kernels_ms: load.kernels_ms,
    model_tables_ms: load.tables_ms,
    model_ready_ms: load.ready_ms,
  };
}

type RateKey = keyof StartRun & `${string}_per_second` | keyof StartRun & `load_share_${string}`;

function rates(log: string, { cache, plain }: { cache: number; plain: number }): Pick<StartRun, RateKey> {
  const { bytes, weights_ms } = line(log, "model loaded");
  const load = bytes / 1e3 / weights_ms;
  return {
    load_mb_per_second: load,
    plain_mb_per_second: plain,
    cache_mb_per_second: cache,
    load_share_of_plain: load / plain,
    load_share_of_cache: load / cache,
  };
}

/** MB/s of reading a whole file, in pieces, into `buffer` again and again. */
function readRate(path: string, buffer: Uint8Array): number {
  using file = Deno.openSync(path);
  const start = performance.now();
  let bytes = 0, at = 0;
  for (;;) {
    if (at === buffer.length) at = 0;
    const n = file.readSync(buffer.subarray(at, at + BUFFER_BYTES));
    if (n === null) break;
    bytes += n;
    at += n;
  }
  return bytes / 1e3 / (performance.now() - start);
}
