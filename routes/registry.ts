/**
 * The models that requests can name: which version each name points at, and how that changes while requests run. A request
 * keeps the version it began with; a name has exactly one current version at any moment.
 */
import { OatmillError } from "../errors.ts";
import type { OpenedModel } from "../engine/open_model.ts";
import type { EngineStats } from "../engine/types.ts";
import { artifactVersion } from "../models/formats/artifact_version.ts";
import type { AnyHeader } from "../models/formats/graph_artifact.ts";
import { type DataFolder, removeTree } from "../store/data_folder.ts";
import type { AdapterStore } from "../store/adapter_store.ts";
import type { ModelStore, StoredModel } from "../store/model_store.ts";
import { log } from "../telemetry/log.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { AdapterRegistry } from "./adapter_registry.ts";
import { EnginePool, type Lease } from "./engine_pool.ts";
import { type ModelInfo, modelInfo } from "./model_info.ts";
import { findVersion, parseReference, shortVersion, shown } from "./model_reference.ts";
import { Turns } from "./turns.ts";

export type Model = StoredModel & { readonly info: ModelInfo };

/** The current version, the one to go back to, and one more. */
export const KEEP_VERSIONS = 3;

export interface RegistryOptions {
  readonly data: DataFolder;
  readonly models: ModelStore;
  readonly adapters: AdapterStore;
  readonly open: (path: string) => Promise<OpenedModel>;
  /** Most engines kept; those in use are never closed for others. */
  readonly maxLoaded: number;
  /** An engine that nobody uses is closed after so long; 0 = never. */
  readonly idleMs: number;
  /** Versions kept of a name, with the current one; those in use are kept beside them until they are free. */
  readonly keepVersions: number;
  readonly telemetry: Telemetry;
}

export class ModelRegistry {
  readonly adapters: AdapterRegistry;
  readonly #o: RegistryOptions;
  readonly #pool: EnginePool;
  readonly #preparing = new Set<string>();
  /** Of names that were asked for; nobody else writes them while this process holds the data folder. */
  readonly #current = new Map<string, Model>();
  /** Folders of versions that are being deleted: nobody may use them any more. */
  readonly #leaving = new Set<string>();
  /** Names on their way out. */
  readonly #leavingNames = new Set<string>();
  /** Folders of versions beyond those to keep. */
  readonly #old = new Set<string>();
  /** Changes of one name come one after the other. */
  readonly #turns = new Turns();
  /** Those who wait until a version is free. */
  readonly #waiting = new Set<() => void>();
  #closed = false;

  constructor(options: RegistryOptions) {
    this.#o = options;
    const { maxLoaded, idleMs, telemetry } = options;
    this.#pool = new EnginePool({
      open: (stored) => this.#open(stored),
      maxLoaded,
      idleMs,
      telemetry,
      onUse: (id, atMs) => this.#noteUse(id, atMs),
      onFree: (stored) => this.#onFree(stored),
    });
    const { data, adapters } = options;
    this.adapters = new AdapterRegistry({ data, adapters, enginesOf: (name) => this.#pool.enginesOf(name) });
  }

  /** The current version of every name. */
  list(): Model[] {
    return this.#o.models.list() as Model[]; // written by add() only
  }
  /** The current one first. */
  versions(name: string): Model[] {
    return this.#o.models.versions(name) as Model[];
  }
  /**
   * What `name` or `name@version` addresses, with or without an adapter.
   * @throws {OatmillError} unavailable while it is being prepared, model_not_found, invalid_request when the version is
   * ambiguous
   */
  get(id: string): Model {
    const { name, version, adapter } = parseReference(id);
    const current = this.#currentOf(name);
    if (current && adapter !== null) this.adapters.get(name, adapter);
    if (current) return version === null ? current : findVersion({ name, version }, this.versions(name));
    if (this.#preparing.has(name)) {
      throw new OatmillError(
        "unavailable",
        `Model "${name}" is being compressed: try again shortly`,
        "model",
      );
    }
    throw notFound(id);
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
  has(name: string): boolean {
    return this.#currentOf(name) !== null;
  }

  /** From memory where it is known: a query for every request would cost each 20 µs of the one thread they share. */
  #currentOf(name: string): Model | null {
    const current = this.#current.get(name) ?? this.#o.models.get(name) as Model | null;
    if (current) this.#current.set(name, current);
    return current;
  }
  /** Writes what a name points at, or may point at. */
  #change(name: string, write: () => void): void {
    this.#current.delete(name);
    write();
  }

  /** @throws {OatmillError} model_not_found, or why the artifact or the adapter does not load */
  async acquire(id: string): Promise<Lease> {
    const stored = this.get(id), { adapter } = parseReference(id);
    if (this.#leaving.has(stored.folder)) throw notFound(id, "is being deleted");
    const lease = await this.#pool.acquire(stored);
    if (adapter === null) return lease;
    return await this.adapters.use(lease, adapter).catch((error) => {
      lease[Symbol.dispose]();
      throw error;
    });
  }

  /**
   * Takes a finished artifact folder over as a version of a name and points the name at it. Where the name's engine is
   * loaded, the new one is loaded first, so that no request waits for it. The same content is the same version.
   * @param folder name of its folder in `models/`, for those who must find it again after a crash
   * @returns the version
   * @throws {OatmillError} why the new version does not load: the name stays where it was
   */
  async add(name: string, artifactPath: string, header: AnyHeader, folder?: string): Promise<string> {
    const version = artifactVersion(header), { models, data } = this.#o;
    return await this.#turns.take(name, async () => {
      const known = this.versions(name).find((v) => v.version === version);
      if (known) {
        await removeTree(artifactPath);
        await this.#switch(known);
        return version;
      }
      const stored = await data.publish(artifactPath, folder);
      const added: Model = {
        id: name,
        version,
        folder: stored,
        createdMs: Date.now(),
        info: modelInfo(header),
      };
      try {
        this.#change(name, () => models.add(added));
      } catch (error) {
        await data.takeBack(stored, artifactPath); // no row tells of it: whoever made it may try again
        throw error;
      }
      try {
        await this.#switch(added);
      } catch (error) {
        // What lacks memory today may have it tomorrow; what is damaged will not heal.
        if (codeOf(error) !== "insufficient_memory") await this.#tryTake([added]);
        throw error;
      }
      return version;
    });
  }
  /**
   * Points a name at another of its versions.
   * @throws {OatmillError} model_not_found, invalid_request when the version is ambiguous, why it does not load
   */
  async point(name: string, version: string): Promise<Model> {
    return await this.#turns.take(name, async () => {
      const target = this.get(`${name}@${version}`);
      await this.#switch(target);
      return target;
    });
  }
  async #switch(target: Model): Promise<void> {
    const { id } = target, former = this.#currentOf(id)!;
    if (former.folder === target.folder) return;
    using _ready = this.#pool.isLoaded(former) ? await this.#loadBeside(former, target) : null;
    this.#change(id, () => this.#o.models.point(id, target.version));
    this.#pool.replace(former);
    this.#o.telemetry.add("modelSwitches", 1, { "gen_ai.request.model": id });
    log("info", "model switched", { ...logFields(target), from: shortVersion(former.version) });
    await this.#removeOld(id);
  }
  /** An idle engine gives way to its successor when the memory holds only one of them. */
  async #loadBeside(former: StoredModel, target: Model): Promise<Lease> {
    try {
      return await this.#pool.acquire(target).catch(async (error) => {
        if (codeOf(error) !== "insufficient_memory" || this.#pool.leases(former) > 0) throw error;
        await this.#pool.close(former, "room");
        return await this.#pool.acquire(target);
      });
    } catch (cause) {
      const code = codeOf(cause);
      if (code === null) throw cause;
      const stays = `Model "${target.id}" stays at version ${shortVersion(former.version)}`;
      const why = `${shortVersion(target.version)} does not load: ${(cause as Error).message}`;
      const kept = code === "insufficient_memory" ? "; it is kept, point the model at it when it fits" : "";
      throw new OatmillError(code, `${stays}: ${why}${kept}`, "version", { cause });
    }
  }

  /**
   * Deletes a name with all its versions and adapters, or one version (`name@version`), or one adapter (`name:adapter`).
   * @param options.drainMs requests under way may take so long, new ones are refused; then they fail with `unavailable`.
   * Without it nothing may be under way.
   * @throws {OatmillError} model_not_found, conflict when requests run or others would be left without a current version
   */
  async remove(id: string, { drainMs }: { readonly drainMs?: number } = {}): Promise<void> {
    const { name, version, adapter } = parseReference(id);
    this.get(id);
    if (adapter !== null) return await this.adapters.remove(name, adapter);
    if (version === null) this.#leavingNames.add(name);
    try {
      await this.#turns.take(name, async () => {
        const model = this.get(id), all = this.versions(name);
        if (version !== null && all.length > 1 && model.folder === all[0].folder) {
          throw new OatmillError(
            "conflict",
            `Cannot delete ${shown(id)}: "${name}" points at it; point it at another version first`,
            "model",
          );
        }
        const leaving = version === null ? all : [model];
        try {
          if (drainMs !== undefined) await this.#drain(leaving, drainMs);
          else this.#refuseUsed(id, leaving);
          await this.#take(leaving);
        } finally {
          for (const { folder } of leaving) this.#leaving.delete(folder);
        }
      });
    } finally {
      this.#leavingNames.delete(name);
    }
  }
  #refuseUsed(id: string, versions: readonly StoredModel[]): void {
    const used = versions.reduce((sum, v) => sum + this.#pool.leases(v), 0);
    if (used === 0) return;
    throw new OatmillError(
      "conflict",
      `Cannot delete ${shown(id)}: requests use it (${used}); wait for them, or delete it with ?drain=true`,
      "model",
    );
  }
  /** Whether the whole name is on its way out. */
  isLeaving(name: string): boolean {
    return this.#leavingNames.has(name);
  }
  /** Admits nobody and waits until everybody has left or the time is over. */
  async #drain(versions: readonly StoredModel[], ms: number): Promise<void> {
    for (const { folder } of versions) this.#leaving.add(folder);
    const free = () => this.#closed || versions.every((v) => this.#pool.leases(v) === 0);
    if (free() || ms <= 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => free() && resolve();
    const timer = setTimeout(resolve, ms);
    this.#waiting.add(look);
    await promise;
    this.#waiting.delete(look);
    clearTimeout(timer);
  }
  /**
   * Rows first, at once with the engines' end: nobody can begin to use what is on its way out, and what a crash leaves are
   * folders of no model, as are those that cannot be removed now.
   */
  async #take(versions: readonly StoredModel[]): Promise<void> {
    const [{ id }] = versions, adapters = this.adapters.list(id);
    this.#change(id, () => this.#o.models.remove(id, versions.map((v) => v.version)));
    await Promise.all(versions.map(async (v) => {
      const fields = logFields(v);
      await this.#pool.close(v, "deleted");
      this.#old.delete(v.folder);
      await this.#o.data.remove(v.folder).then(
        () => log("info", "model deleted", fields),
        (error) => log("error", "cannot remove files of a model", { ...fields, error: String(error) }),
      );
    }));
    if (!this.has(id)) await this.adapters.forget(id, adapters);
  }

  /** What stays for a full disk is a version that the name does not point at, or a folder that the next start removes. */
  async #tryTake(versions: readonly StoredModel[]): Promise<void> {
    try {
      await this.#take(versions);
    } catch (error) {
      log("error", "cannot remove versions", { ...logFields(versions[0]), error: String(error) });
    }
  }

  /** What a failing disk does not tell can wait for the next change: a switch that was made stands. */
  #tryVersions(name: string): Model[] {
    try {
      return this.versions(name);
    } catch (error) {
      log("error", "cannot look for old versions", { model: name, error: String(error) });
      return [];
    }
  }
  #onFree({ id, folder }: StoredModel): void {
    for (const look of this.#waiting) look();
    if (this.#old.has(folder)) this.#turns.take(id, () => this.#removeOld(id));
  }
  /** Of the versions beyond those to keep, what nobody uses; the others go when they are free. */
  async #removeOld(name: string): Promise<void> {
    const all = this.#tryVersions(name), old = all.slice(this.#o.keepVersions);
    for (const { folder } of all) this.#old.delete(folder);
    for (const { folder } of old) this.#old.add(folder);
    const free = old.filter((v) => this.#pool.leases(v) === 0);
    if (free.length > 0) await this.#tryTake(free);
  }

  /** Which model a start loads first is worth no request: a full disk does not stop answers. */
  #noteUse(id: string, atMs: number): void {
    try {
      this.#o.models.use(id, atMs);
    } catch (error) {
      log("warn", "cannot note a use", { model: id, error: String(error) });
    }
  }
  /** Why an artifact is refused names places on the server: that is for the log. */
  async #open(stored: StoredModel): Promise<OpenedModel> {
    try {
      return await this.#o.open(this.#o.data.modelPath(stored.folder));
    } catch (cause) {
      if (codeOf(cause) !== "invalid_artifact") throw cause;
      const message = `Cannot load the model "${stored.id}" (version ${shortVersion(stored.version)}): ` +
        "its files are damaged; delete it and compress it again";
      throw new OatmillError("invalid_artifact", message, "model", { cause });
    }
  }

  /** Of every loaded engine. */
  stats(): { id: string; version: string; stats: EngineStats }[] {
    return this.#pool.stats();
  }
  /** Ends requests under way; deletions and switches under way come to their end. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const look of this.#waiting) look();
    await this.#pool.closeAll();
    await this.#turns.idle();
    await this.#pool.closeAll(); // what a switch has loaded meanwhile
  }
}

const logFields = ({ id, version }: StoredModel) => ({ model: id, version: shortVersion(version) });
const codeOf = (error: unknown) => error instanceof OatmillError ? error.code : null;

const notFound = (id: string, why = "does not exist") =>
  new OatmillError(
    "model_not_found",
    `Model ${shown(id)} ${why}: GET /v1/models lists those that do`,
    "model",
  );
