/**
 * Loaded models: an engine is made at a model's first use, shared, and closed when others need its place or nobody has
 * used it for a while.
 */
import { collectGarbage } from "../engine/collect_garbage.ts";
import { OatmillError } from "../errors.ts";
import type { LoadTimes } from "../engine/load_times.ts";
import type { OpenedModel } from "../engine/open_model.ts";
import type { EngineStats } from "../engine/types.ts";
import type { DataFolder } from "../store/data_folder.ts";
import type { ModelStore, StoredModel } from "../store/model_store.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import type { AnyHeader } from "../models/formats/graph_artifact.ts";
import { log, type LogFields } from "../telemetry/log.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** What is kept of an artifact's header beside its name: enough to list models without opening them. */
export interface ModelInfo {
  readonly architecture: string;
  readonly contextLength: number;
  readonly bytes: number;
  readonly denseBytes: number;
  readonly method: string;
  readonly rate: number;
  readonly values: string;
  readonly sparsity: number;
  readonly perplexity: ArtifactHeader["perplexity"];
  /** Name -> size and SHA-256 of what may be downloaded. */
  readonly files: ArtifactHeader["files"];
}

/** What graphs are listed as. */
const GRAPH_INFO = { architecture: "ONNX", contextLength: 0 } as const;

export function modelInfo(header: AnyHeader): ModelInfo {
  const weights = header.layers.map((l) => l.shape[0] * l.shape[1]);
  const kept = header.layers.reduce((sum, l, i) => sum + l.kept * weights[i], 0);
  const all = weights.reduce((a, b) => a + b, 0);
  const { architecture, contextLength } = "spec" in header ? header.spec : GRAPH_INFO;
  return {
    architecture,
    contextLength,
    bytes: header.bytes,
    denseBytes: header.denseBytes,
    method: header.recipe.method,
    rate: header.recipe.rate,
    values: header.recipe.values,
    sparsity: all === 0 ? 0 : 1 - kept / all,
    perplexity: header.perplexity,
    files: header.files,
  };
}

/** As log fields: `weights_ms`, ..., the weights' bytes and whether all threads read them. */
function loadFields({ ms, total }: LoadTimes): LogFields {
  // Tenths: a small model's weights take a few milliseconds, of which `bench start` makes a rate.
  const phases = Object.entries(ms).map(([phase, value]) => [`${phase}_ms`, Math.round(value * 10) / 10]);
  return { ...Object.fromEntries(phases), bytes: total?.bytes, parallel: total?.parallel };
}

interface Entry {
  readonly opened: Promise<OpenedModel>;
  model: OpenedModel | null;
  /** Why its engine was closed, for those who still use it. */
  closed: OatmillError | null;
  leases: number;
  lastUsed: number;
  lastUsedMs: number;
  /** Runs while there is no lease. */
  idle: ReturnType<typeof setTimeout> | undefined;
}
/** Why an engine is closed: as metrics and logs say it. */
type CloseReason = "idle" | "room" | "deleted" | "shutdown";

/** A model in use; dispose it when the request is over. */
export interface Lease extends Disposable {
  readonly id: string;
  readonly model: OpenedModel;
  /** Set when the engine was closed: why requests under way fail. */
  readonly closed: OatmillError | null;
}

export interface RegistryOptions {
  readonly data: DataFolder;
  readonly models: ModelStore;
  readonly open: (path: string) => Promise<OpenedModel>;
  /** Most engines kept; those in use are never closed for others. */
  readonly maxLoaded: number;
  /** An engine that nobody uses is closed after so long; 0 = never. */
  readonly idleMs: number;
  readonly telemetry: Telemetry;
}

export class ModelRegistry {
  readonly #o: RegistryOptions;
  readonly #entries = new Map<string, Entry>();
  /** Engines that are being closed. */
  readonly #closing = new Set<Promise<void>>();
  readonly #preparing = new Set<string>();
  #uses = 0;

  constructor(options: RegistryOptions) {
    this.#o = options;
  }

  list(): (StoredModel & { info: ModelInfo })[] {
    return this.#o.models.list() as (StoredModel & { info: ModelInfo })[]; // written by add() only
  }
  /** @throws {OatmillError} unavailable while it is being prepared, model_not_found */
  get(id: string): StoredModel & { info: ModelInfo } {
    const model = this.#o.models.get(id);
    if (model) return model as StoredModel & { info: ModelInfo };
    if (this.#preparing.has(id)) {
      throw new OatmillError("unavailable", `Model "${id}" is being compressed: try again shortly`, "model");
    }
    throw new OatmillError(
      "model_not_found",
      `Model ${JSON.stringify(id.slice(0, 200))} does not exist: GET /v1/models lists those that do`,
      "model",
    );
  }
  /** Does the work that adds a model; until it ends, who asks for the model hears that it is on its way. */
  async prepare(id: string, work: () => Promise<void>): Promise<void> {
    this.#preparing.add(id);
    try {
      await work();
    } finally {
      this.#preparing.delete(id);
    }
  }
  /** The model to load at a start: the most recently used, or the newest; null when there is none. */
  lastUsed(): string | null {
    return this.#o.models.lastUsed();
  }
  has(id: string): boolean {
    return this.#o.models.get(id) !== null;
  }

  /** Takes a finished artifact folder over under a name. @throws {OatmillError} conflict */
  async add(id: string, artifactPath: string, header: AnyHeader): Promise<void> {
    const folder = await this.#o.data.publish(artifactPath);
    if (this.#o.models.add({ id, folder, createdMs: Date.now(), info: modelInfo(header) })) return;
    await this.#o.data.remove(folder);
    throw new OatmillError("conflict", `Cannot name the model "${id}": the name is taken`, "name");
  }
  /** Requests under way fail with `unavailable`. @throws {OatmillError} model_not_found */
  async remove(id: string): Promise<void> {
    this.get(id);
    const folder = this.#o.models.remove(id)!;
    await this.#close(id, "deleted", `The model "${id}" was deleted`);
    await this.#o.data.remove(folder);
  }

  /** @throws {OatmillError} model_not_found, or why the artifact does not load */
  async acquire(id: string): Promise<Lease> {
    const entry = this.#entries.get(id) ?? this.#load(this.get(id));
    entry.leases++;
    this.#touch(entry);
    clearTimeout(entry.idle);
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      this.#touch(entry);
      if (--entry.leases === 0) this.#waitIdle(id, entry);
    };
    try {
      const model = await entry.opened;
      return {
        id,
        model,
        get closed() {
          return entry.closed;
        },
        [Symbol.dispose]: release,
      };
    } catch (error) {
      release();
      throw error;
    }
  }
  #touch(entry: Entry): void {
    entry.lastUsed = ++this.#uses;
    entry.lastUsedMs = Date.now();
  }
  #waitIdle(id: string, entry: Entry): void {
    const { idleMs } = this.#o;
    if (idleMs === 0 || this.#entries.get(id) !== entry) return;
    entry.idle = setTimeout(() => this.#close(id, "idle", `The model "${id}" was unloaded`), idleMs);
  }
  #load(stored: StoredModel): Entry {
    const start = performance.now();
    const opened = this.#makeRoom().then(() => this.#open(stored));
    const entry: Entry = {
      opened,
      model: null,
      closed: null,
      leases: 0,
      lastUsed: 0,
      lastUsedMs: 0,
      idle: undefined,
    };
    this.#entries.set(stored.id, entry);
    this.#o.models.use(stored.id, Date.now());
    opened.then((model) => {
      entry.model = model;
      const ms = performance.now() - start;
      log("info", "model loaded", { model: stored.id, ms: Math.round(ms), ...loadFields(model.times) });
      this.#o.telemetry.record("modelLoadDuration", ms / 1000, { "gen_ai.request.model": stored.id });
    }, (error) => {
      if (this.#entries.get(stored.id) === entry) this.#entries.delete(stored.id);
      log("error", "model does not load", {
        model: stored.id,
        error: String((error as Error).cause ?? error),
      });
    });
    return entry;
  }
  /** Why an artifact is refused names places on the server: that is for the log. */
  async #open({ id, folder }: StoredModel): Promise<OpenedModel> {
    try {
      return await this.#o.open(this.#o.data.modelPath(folder));
    } catch (cause) {
      if (!(cause instanceof OatmillError) || cause.code !== "invalid_artifact") throw cause;
      const message = `Cannot load the model "${id}": its files are damaged; delete it and compress it again`;
      throw new OatmillError("invalid_artifact", message, "model", { cause });
    }
  }
  /**
   * Closes the longest unused idle engines until one more fits; all at once, as one that waits for its turn could come into
   * use. Waits for every engine that is being closed: the next one may need its memory.
   */
  async #makeRoom(): Promise<void> {
    const idle = [...this.#entries].filter(([, e]) => e.leases === 0 && e.model !== null)
      .sort(([, a], [, b]) => a.lastUsed - b.lastUsed);
    const excess = this.#entries.size + 1 - this.#o.maxLoaded;
    for (const [id] of idle.slice(0, Math.max(0, excess))) {
      this.#close(id, "room", `The model "${id}" was unloaded to make room for another`);
    }
    await Promise.all(this.#closing);
  }
  #close(id: string, reason: CloseReason, why: string): Promise<void> {
    const entry = this.#entries.get(id);
    if (!entry) return Promise.resolve();
    this.#entries.delete(id);
    clearTimeout(entry.idle);
    entry.closed = new OatmillError("unavailable", why);
    const closing = this.#closeEngine(id, reason, entry).finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
    return closing;
  }
  async #closeEngine(id: string, reason: CloseReason, entry: Entry): Promise<void> {
    const model = await entry.opened.catch(() => null);
    if (!model) return;
    await model.engine.close();
    this.#o.models.use(id, entry.lastUsedMs);
    this.#o.telemetry.add("modelUnloads", 1, { "gen_ai.request.model": id, reason });
    if (reason !== "shutdown") collectGarbage();
    log("info", "model unloaded", { model: id, reason });
  }

  /** Of every loaded model. */
  stats(): { id: string; stats: EngineStats }[] {
    return [...this.#entries].flatMap(([id, e]) => e.model ? [{ id, stats: e.model.engine.stats() }] : []);
  }
  async close(): Promise<void> {
    for (const id of this.#entries.keys()) this.#close(id, "shutdown", "The server is shutting down");
    await Promise.all(this.#closing);
  }
}
