/**
 * Loaded models: an engine is made at a version's first use, shared, and closed when others need its place, nobody has used
 * it for a while, or another version has taken its name. An engine that somebody uses is never closed but by close().
 */
import { collectGarbage } from "../engine/collect_garbage.ts";
import type { LoadTimes } from "../engine/load_times.ts";
import type { OpenedModel } from "../engine/open_model.ts";
import type { Engine, EngineStats } from "../engine/types.ts";
import { OatmillError } from "../errors.ts";
import type { StoredModel } from "../store/model_store.ts";
import { log, type LogFields } from "../telemetry/log.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { shortVersion } from "./model_reference.ts";

/** A model in use; dispose it when the request is over. */
export interface Lease extends Disposable {
  /** The model's name. */
  readonly id: string;
  /** What it answers with, whatever the name comes to point at meanwhile. */
  readonly version: string;
  /** The LoRA adapter that every request of `model`'s engine goes through; null: none. */
  readonly adapter: string | null;
  readonly model: OpenedModel;
  /** Set when the engine was closed: why requests under way fail. */
  readonly closed: OatmillError | null;
}

export interface EnginePoolOptions {
  readonly open: (stored: StoredModel) => Promise<OpenedModel>;
  /** Most engines kept; those in use are never closed for others. */
  readonly maxLoaded: number;
  /** An engine that nobody uses is closed after so long; 0 = never. */
  readonly idleMs: number;
  readonly telemetry: Telemetry;
  /** Hears of the uses of a model's name, and when. */
  readonly onUse: (id: string, atMs: number) => void;
  /** Hears when nobody uses a version any more. */
  readonly onFree: (stored: StoredModel) => void;
}

interface Entry {
  readonly stored: StoredModel;
  readonly opened: Promise<OpenedModel>;
  model: OpenedModel | null;
  /** Why its engine was closed, for those who still use it. */
  closed: OatmillError | null;
  leases: number;
  lastUsed: number;
  lastUsedMs: number;
  /** Runs while there is no lease. */
  idle: ReturnType<typeof setTimeout> | undefined;
  /** To be closed when its last lease ends, unless somebody asks for it first. */
  replaced: boolean;
}
/** Why an engine is closed: as metrics and logs say it. */
export type CloseReason = "failed" | "idle" | "room" | "replaced" | "deleted" | "shutdown";

const REASONS: Readonly<Record<CloseReason, string>> = {
  failed: "failed: a thread of its engine died",
  idle: "was unloaded",
  room: "was unloaded to make room for another",
  replaced: "was replaced by another version",
  deleted: "was deleted",
  shutdown: "is closed: the server is shutting down",
};

/** As log fields: `weights_ms`, ..., the weights' bytes and whether all threads read them. */
function loadFields({ ms, total }: LoadTimes): LogFields {
  // Tenths: a small model's weights take a few milliseconds, of which `bench start` makes a rate.
  const phases = Object.entries(ms).map(([phase, value]) => [`${phase}_ms`, Math.round(value * 10) / 10]);
  return { ...Object.fromEntries(phases), bytes: total?.bytes, parallel: total?.parallel };
}
const logged = ({ id, version }: StoredModel): LogFields => ({ model: id, version: shortVersion(version) });

export class EnginePool {
  readonly #o: EnginePoolOptions;
  /** By the folder that the version lies in. */
  readonly #entries = new Map<string, Entry>();
  /** Engines that are being closed. */
  readonly #closing = new Set<Promise<void>>();
  #uses = 0;

  constructor(options: EnginePoolOptions) {
    this.#o = options;
  }

  /** The version counts as used from the call on, also while it loads. @throws why the artifact does not load */
  async acquire(stored: StoredModel): Promise<Lease> {
    this.#dropDead(stored);
    const entry = this.#entries.get(stored.folder) ?? this.#load(stored);
    entry.leases++;
    entry.replaced = false;
    this.#touch(entry);
    clearTimeout(entry.idle);
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      this.#touch(entry);
      if (--entry.leases === 0) this.#free(entry);
    };
    try {
      const model = await entry.opened;
      return {
        id: stored.id,
        version: stored.version,
        adapter: null,
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
  /** An engine whose thread died makes place for a new one; its requests have failed already. */
  #dropDead(stored: StoredModel): void {
    const failure = this.#entries.get(stored.folder)?.model?.engine.failure;
    if (!failure) return;
    log("error", "an engine failed and is started again", { ...logged(stored), failure });
    this.close(stored, "failed");
  }
  isLoaded({ folder }: StoredModel): boolean {
    return this.#entries.has(folder);
  }
  /** Requests under way, and waiting for its load. */
  leases({ folder }: StoredModel): number {
    return this.#entries.get(folder)?.leases ?? 0;
  }
  /** Closes it as soon as nobody uses it; who asks for it before that keeps it. */
  replace(stored: StoredModel): void {
    const entry = this.#entries.get(stored.folder);
    if (!entry) return;
    entry.replaced = true;
    if (entry.leases === 0) this.close(stored, "replaced");
  }
  /** Closes it at once: requests under way fail with `unavailable`. */
  close({ folder }: StoredModel, reason: CloseReason): Promise<void> {
    const entry = this.#entries.get(folder);
    if (!entry) return Promise.resolve();
    this.#entries.delete(folder);
    clearTimeout(entry.idle);
    entry.closed = new OatmillError("unavailable", `The model "${entry.stored.id}" ${REASONS[reason]}`);
    const closing = this.#closeEngine(entry, reason).finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
    return closing;
  }
  /** The engines of a name's versions that are loaded. */
  enginesOf(name: string): Engine[] {
    return [...this.#entries.values()].flatMap(({ stored, model }) =>
      model && stored.id === name ? [model.engine] : []
    );
  }
  /** Of every engine; a name has several while requests end on a version that it no longer points at. */
  stats(): { id: string; version: string; stats: EngineStats }[] {
    return [...this.#entries.values()].flatMap(({ stored: { id, version }, model }) =>
      model ? [{ id, version, stats: model.engine.stats() }] : []
    );
  }
  async closeAll(): Promise<void> {
    for (const { stored } of [...this.#entries.values()]) this.close(stored, "shutdown");
    await Promise.all(this.#closing);
  }

  #touch(entry: Entry): void {
    entry.lastUsed = ++this.#uses;
    entry.lastUsedMs = Date.now();
  }
  #free(entry: Entry): void {
    const { stored } = entry;
    if (this.#entries.get(stored.folder) === entry) {
      const { idleMs } = this.#o;
      if (entry.replaced) this.close(stored, "replaced");
      else if (idleMs > 0) entry.idle = setTimeout(() => this.close(stored, "idle"), idleMs);
    }
    this.#o.onFree(stored);
  }
  #load(stored: StoredModel): Entry {
    const start = performance.now();
    const entry: Entry = {
      stored,
      opened: this.#makeRoom().then(() => this.#o.open(stored)),
      model: null,
      closed: null,
      leases: 0,
      lastUsed: 0,
      lastUsedMs: 0,
      idle: undefined,
      replaced: false,
    };
    this.#entries.set(stored.folder, entry);
    this.#o.onUse(stored.id, Date.now());
    entry.opened.then((model) => {
      entry.model = model;
      const ms = performance.now() - start;
      log("info", "model loaded", { ...logged(stored), ms: Math.round(ms), ...loadFields(model.times) });
      this.#o.telemetry.record("modelLoadDuration", ms / 1000, { "gen_ai.request.model": stored.id });
    }, (error) => {
      if (this.#entries.get(stored.folder) === entry) this.#entries.delete(stored.folder);
      log("error", "model does not load", {
        ...logged(stored),
        error: String((error as Error).cause ?? error),
      });
    });
    return entry;
  }
  /**
   * Closes the longest unused idle engines until one more fits; all at once, as one that waits for its turn could come into
   * use. Waits for every engine that is being closed: the next one may need its memory.
   */
  async #makeRoom(): Promise<void> {
    const idle = [...this.#entries.values()].filter((e) => e.leases === 0 && e.model !== null)
      .sort((a, b) => a.lastUsed - b.lastUsed);
    const excess = this.#entries.size + 1 - this.#o.maxLoaded;
    for (const { stored } of idle.slice(0, Math.max(0, excess))) this.close(stored, "room");
    await Promise.all(this.#closing);
  }
  async #closeEngine({ stored, opened, lastUsedMs }: Entry, reason: CloseReason): Promise<void> {
    const model = await opened.catch(() => null);
    if (!model) return;
    model.longTexts?.close();
    await model.engine.close();
    this.#o.onUse(stored.id, lastUsedMs);
    this.#o.telemetry.add("modelUnloads", 1, { "gen_ai.request.model": stored.id, reason });
    if (reason !== "shutdown") collectGarbage();
    log("info", "model unloaded", { ...logged(stored), reason });
  }
}
