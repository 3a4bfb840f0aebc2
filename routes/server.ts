/** Puts the services together and listens: the only place where routes meet real engines, files and exporters. */
import type { DatabaseSync } from "node:sqlite";
import project from "../deno.json" with { type: "json" };
import type { LoadTimes } from "../engine/load_times.ts";
import { openModel } from "../engine/open_model.ts";
import type { TuningOptions } from "../engine/tuning.ts";
import type { EngineOptions } from "../engine/types.ts";
import { OatmillError } from "../errors.ts";
import { DEFAULT_HUB_URL, type HubAccess } from "../hub/reference.ts";
import { AdapterStore } from "../store/adapter_store.ts";
import { DataFolder } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { JobStore } from "../store/job_store.ts";
import { KeyStore } from "../store/key_store.ts";
import { LoadStore } from "../store/load_store.ts";
import { SpeedStore } from "../store/speed_store.ts";
import { ModelStore } from "../store/model_store.ts";
import type { Retention } from "../store/retention.ts";
import { openStorage } from "../store/storage.ts";
import { log } from "../telemetry/log.ts";
import type { OtlpOptions } from "../telemetry/otlp.ts";
import { Telemetry } from "../telemetry/telemetry.ts";
import { ImageReader } from "../vision/image_reader.ts";
import { ApiKeys } from "./api_keys.ts";
import { returnArtifacts } from "./job_folders.ts";
import { jobNeeding, JobRunner } from "./jobs.ts";
import { LoadRunner } from "./loads/load_runner.ts";
import { measureSpeed } from "./speeds/measure_speed.ts";
import { SpeedRunner } from "./speeds/speed_runner.ts";
import { refuseOpenServer } from "./loopback.ts";
import { observeModels } from "./model_gauges.ts";
import { RateLimiter, type RateLimits } from "./rate_limits.ts";
import { KEEP_VERSIONS, ModelRegistry } from "./registry.ts";
import { requestHandler } from "./request_handler.ts";
import { runTask } from "./run_task.ts";
import { DEFAULT_LIMITS, type Limits, type Services } from "./services.ts";
import { tidyModels } from "./stored_models.ts";
import { Traffic } from "./traffic.ts";

export interface ServerOptions {
  /** Data folder. */
  readonly data: string;
  /** Null: measurements are at /metrics alone. */
  readonly otlp: OtlpOptions | null;
  readonly engine: EngineOptions;
  /** Most models kept loaded. */
  readonly maxLoaded: number;
  /** Engines that nobody uses are closed after so long; 0 = never. */
  readonly idleMs: number;
  /** Versions kept of a model's name; those in use stay beside them. Default: {@linkcode KEEP_VERSIONS}. */
  readonly keepVersions?: number;
  /** Of jobs and uploads that are over. */
  readonly retention?: Retention;
  readonly limits?: Partial<Limits>;
  /** Default: Hugging Face, without a token. */
  readonly hub?: HubAccess;
  /** Beside those of the data folder. */
  readonly apiKeys?: readonly string[];
  readonly corsOrigins?: readonly string[];
  readonly rates?: RateLimits;
}
export interface ListenOptions {
  readonly host: string;
  /** Listen beyond this machine also without keys. */
  readonly allowAnonymous?: boolean;
  /** 0 = any free one. */
  readonly port: number;
}

export interface DrainOptions {
  /** Requests are refused so long before the server stops listening, for load balancers to notice; default 0. */
  readonly delayMs?: number;
  /** Requests under way may take so long to end; default 0. */
  readonly timeoutMs?: number;
}

const LEAVING = "The server is shutting down";
/** What ends by the timeout's error gets so long to be sent. */
const FLUSH_MS = 5_000;

export class Server implements AsyncDisposable {
  #http: Deno.HttpServer<Deno.NetAddr> | null = null;
  #address: string | null = null;
  #notReady: string | null = "The server is starting";

  private constructor(readonly services: Services, readonly database: DatabaseSync) {}

  /** Opens the data folder and everything above it. @throws {OatmillError} conflict, storage_failed */
  static async open(options: ServerOptions): Promise<Server> {
    const { version } = project;
    const data = await DataFolder.open(options.data);
    await data.needDatabase();
    const database = openDatabase(data.database);
    const models = new ModelStore(database), adapters = new AdapterStore(database);
    const jobs = new JobStore(database);
    await returnArtifacts(data, jobs, models);
    await tidyModels(data, { models, adapters });
    const telemetry = await Telemetry.open({ version, otlp: options.otlp });
    const tuning: TuningOptions = {
      ...options.engine.tuning,
      file: data.tuning,
      onChoice: ({ from, variants }) => log("info", "kernels chosen", { from, ...variants }),
    };
    const open = (path: string) => openModel(path, { ...options.engine, tuning });
    const { maxLoaded, idleMs, keepVersions = KEEP_VERSIONS } = options;
    const registry = new ModelRegistry({
      data,
      models,
      adapters,
      open,
      maxLoaded,
      idleMs,
      keepVersions,
      telemetry,
    });
    const hub = options.hub ?? { url: DEFAULT_HUB_URL, token: null };
    const runner = new JobRunner({
      jobs,
      data,
      registry,
      telemetry,
      hub,
      run: runTask,
      retention: options.retention,
    });
    await runner.recover();
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    const storage = await openStorage({
      database,
      data,
      quotaBytes: limits.storageBytes,
      retention: options.retention,
      neededBy: (file) => jobNeeding(jobs, file),
      onDamage: ({ id, filename }, damage) => log("error", "file is damaged", { file: id, filename, damage }),
      onLostPart: (part) => log("warn", "part of an upload is lost", { part }),
    });
    const notReady = () => server.#notReady;
    const keys = new ApiKeys(new KeyStore(database), options.apiKeys);
    const images = new ImageReader();
    const { corsOrigins = [] } = options;
    const server = new Server({
      version,
      telemetry,
      data,
      registry,
      jobs: runner,
      storage,
      limits,
      hub,
      images,
      keys,
      rates: new RateLimiter(options.rates ?? {}),
      traffic: new Traffic(),
      corsOrigins,
      loads: new LoadRunner(new LoadStore(database)),
      speeds: new SpeedRunner({
        store: new SpeedStore(database),
        measure: measureSpeed,
        threads: options.engine.threads,
        tuning: { ...options.engine.tuning, file: data.tuning },
      }),
      address: (): string | null => server.#address,
      notReady,
    }, database);
    observeModels(server.services);
    telemetry.observe((report) => report("storageBytes", storage.quota.takenBytes));
    return server;
  }

  /**
   * @throws {OatmillError} conflict when the port is taken, invalid_request when there is no such address or others would
   * reach a server without keys
   */
  listen({ host, port, allowAnonymous = false }: ListenOptions): { host: string; port: number } {
    refuseOpenServer(host, { keys: this.services.keys.required, allowAnonymous });
    const handler = requestHandler(this.services, { allowAnonymous });
    try {
      this.#http = Deno.serve({ hostname: host, port, onListen: () => {} }, handler);
    } catch (error) {
      const where = `Cannot listen on ${host}:${port}`;
      if (error instanceof Deno.errors.AddrInUse) {
        throw new OatmillError("conflict", `${where}: another program does; take another port`);
      }
      throw new OatmillError("invalid_request", `${where}: ${(error as Error).message}`, null, {
        cause: error,
      });
    }
    const { hostname, port: bound } = this.#http.addr;
    this.#address = `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${bound}`;
    log("info", "listening", { host: hostname, port: bound });
    this.services.jobs.start();
    return { host: hostname, port: bound };
  }
  /**
   * Loads a model before the first request asks for it, then reports ready.
   * @param options.required without it the server is not ready; else a model that does not load is one that requests for
   * it hear of, and nobody else
   * @returns how long it took, null when it does not load
   */
  async warmUp(
    model: string | null,
    { required }: { readonly required: boolean },
  ): Promise<LoadTimes | null> {
    try {
      using lease = model === null ? null : await this.services.registry.acquire(model);
      this.#notReady = null;
      return lease?.model.times ?? null;
    } catch {
      this.#notReady = required ? `The model "${model}" does not load; the log has the cause` : null;
      return null;
    }
  }

  /**
   * Refuses new requests (503), lets those under way end and then closes everything. What the timeout meets ends with an
   * error in its answer; jobs stop at once and go on at the next start.
   */
  async close({ delayMs = 0, timeoutMs = 0 }: DrainOptions = {}): Promise<void> {
    const { services: { registry, jobs, telemetry, data, images, storage, traffic, loads, speeds } } = this;
    this.#notReady = LEAVING;
    traffic.leave();
    loads[Symbol.dispose](); // its requests are nobody's to wait for
    speeds[Symbol.dispose]();
    log("info", "shutting down", { requests: traffic.open });
    const stoppedJobs = jobs.close();
    await Promise.all([
      withinMs(timeoutMs, traffic.idle()),
      new Promise((done) => setTimeout(done, delayMs)),
    ]);
    const stoppedListening = this.#http?.shutdown();
    await Promise.all([stoppedJobs, registry.close()]);
    await withinMs(FLUSH_MS, stoppedListening);
    log("info", "stopped", { unanswered: traffic.open });
    images.close();
    storage.uploads[Symbol.dispose]();
    await telemetry.close();
    this.database.close();
    data[Symbol.dispose]();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Waits, but no longer than so. */
async function withinMs(ms: number, work: Promise<unknown> | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<void>((done) => timer = setTimeout(done, ms));
  await Promise.race([work, over]);
  clearTimeout(timer);
}
