/**
 * The LoRA adapters of models: which there are, and which engines have which. An adapter belongs to a model's name; an engine
 * of any of the name's versions takes it at its first use, if it fits.
 */
import type { OpenedModel } from "../engine/open_model.ts";
import type { Engine } from "../engine/types.ts";
import { withAdapter } from "../engine/with_adapter.ts";
import { OatmillError } from "../errors.ts";
import type { AdapterStore, StoredAdapter } from "../store/adapter_store.ts";
import type { DataFolder } from "../store/data_folder.ts";
import { log } from "../telemetry/log.ts";
import type { Lease } from "./engine_pool.ts";
import { adapterId, shortVersion, shown } from "./model_reference.ts";

/** What is told of an adapter without opening it. */
export interface AdapterInfo {
  /** What its config says it was trained on; null: nothing. */
  readonly baseModel: string | null;
  /** Of its layers, the largest. */
  readonly rank: number;
  /** Linear layers that it changes. */
  readonly layers: number;
  readonly parameters: number;
  readonly bytes: number;
  /** Of its weights. */
  readonly sha256: string;
}
export type Adapter = StoredAdapter & { readonly info: AdapterInfo };

export interface AdapterRegistryOptions {
  readonly data: DataFolder;
  readonly adapters: AdapterStore;
  /** Of all versions of a name that are loaded. */
  readonly enginesOf: (model: string) => readonly Engine[];
}

/** An adapter in an engine. */
interface Load {
  readonly ready: Promise<void>;
  uses: number;
  lastUsed: number;
}

/** What the removal of another adapter can mend. */
const MENDABLE: readonly string[] = ["insufficient_memory", "conflict"];

export class AdapterRegistry {
  readonly #o: AdapterRegistryOptions;
  /** Of names that were asked for; nobody else writes them while this process holds the data folder. */
  readonly #known = new Map<string, readonly Adapter[]>();
  /** By engine, then by {@linkcode engineName}. */
  readonly #loads = new WeakMap<Engine, Map<string, Load>>();
  #uses = 0;

  constructor(options: AdapterRegistryOptions) {
    this.#o = options;
  }

  /** Those of a model's name, oldest first. */
  list(model: string): readonly Adapter[] {
    const known = this.#known.get(model) ?? this.#o.adapters.list(model) as Adapter[]; // written by add() only
    this.#known.set(model, known);
    return known;
  }
  /** @throws {OatmillError} model_not_found, which names those there are */
  get(model: string, name: string): Adapter {
    const all = this.list(model), found = all.find((adapter) => adapter.name === name);
    if (found) return found;
    const have = all.length === 0 ? "no adapters" : `the adapters ${all.map((a) => a.name).join(", ")}`;
    throw new OatmillError(
      "model_not_found",
      `Model ${shown(adapterId(model, name))} does not exist: "${model}" has ${have.slice(0, 1000)}`,
      "model",
    );
  }
  /** @throws {OatmillError} conflict */
  refuseTaken(model: string, name: string): void {
    if (!this.list(model).some((adapter) => adapter.name === name)) return;
    throw new OatmillError(
      "conflict",
      `Model "${model}" has an adapter "${name}" already: take another name, or delete that one first`,
      "name",
    );
  }

  /**
   * Takes a finished folder of `tmp/` over.
   * @throws {OatmillError} conflict when the name is taken, model_not_found when the model is gone, storage_failed
   */
  async add(
    { model, name, path, info }: Pick<Adapter, "model" | "name" | "info"> & { readonly path: string },
  ): Promise<Adapter> {
    const folder = await this.#o.data.publishAdapter(path);
    const adapter: Adapter = { model, name, folder, createdMs: Date.now(), info };
    let added = false;
    try {
      added = this.#o.adapters.add(adapter);
    } finally {
      this.#known.delete(model);
      if (!added) await this.#o.data.removeAdapter(folder);
    }
    if (added) {
      log("info", "adapter added", { model, adapter: name });
      return adapter;
    }
    this.refuseTaken(model, name);
    throw new OatmillError("model_not_found", `Model ${shown(model)} does not exist any more`, "model");
  }

  /**
   * Requests under way end with it, new ones do not find it.
   * @throws {OatmillError} model_not_found
   */
  async remove(model: string, name: string): Promise<void> {
    const adapter = this.get(model, name);
    this.#o.adapters.remove(model, name);
    this.#known.delete(model);
    for (const engine of this.#o.enginesOf(model)) this.#unload(engine, engineName(adapter));
    await this.#removeFiles(adapter);
  }
  /** What belongs to a model that was deleted: its rows went with it. @param adapters those it had */
  async forget(model: string, adapters: readonly Adapter[]): Promise<void> {
    this.#known.delete(model);
    await Promise.all(adapters.map((adapter) => this.#removeFiles(adapter)));
  }
  /** What cannot be removed now is a folder of no adapter, which the next start removes. */
  async #removeFiles({ model, name, folder }: Adapter): Promise<void> {
    await this.#o.data.removeAdapter(folder).then(
      () => log("info", "adapter deleted", { model, adapter: name }),
      (error) =>
        log("error", "cannot remove an adapter's files", { model, adapter: name, error: String(error) }),
    );
  }

  /**
   * Makes of a lease one whose model answers through the adapter, which its engine gets if it has not got it. Disposing it
   * disposes the lease.
   * @throws {OatmillError} model_not_found, why it does not fit this version or the engine does not take it: the lease stays
   * the caller's
   */
  async use(lease: Lease, name: string): Promise<Lease> {
    const { model, id, version } = lease, adapter = this.get(id, name);
    const load = this.#load(adapter, model, version);
    load.uses++;
    load.lastUsed = ++this.#uses;
    try {
      await load.ready;
    } catch (error) {
      load.uses--;
      throw error;
    }
    let held = true;
    return {
      id,
      version,
      adapter: name,
      model: { ...model, engine: withAdapter(model.engine, engineName(adapter)) },
      get closed() {
        return lease.closed;
      },
      [Symbol.dispose]() {
        if (held) load.uses--;
        held = false;
        lease[Symbol.dispose]();
      },
    };
  }

  #load(adapter: Adapter, model: OpenedModel, version: string): Load {
    const { engine } = model, key = engineName(adapter);
    const loads = this.#loads.get(engine) ?? new Map<string, Load>();
    this.#loads.set(engine, loads);
    const known = loads.get(key);
    if (known) return known;
    const load: Load = { ready: this.#open(adapter, model, version), uses: 0, lastUsed: 0 };
    loads.set(key, load);
    load.ready.catch(() => loads.get(key) === load && loads.delete(key)); // the next request tries again
    return load;
  }
  async #open(adapter: Adapter, { engine, spec }: OpenedModel, version: string): Promise<void> {
    const { model, name, folder } = adapter;
    try {
      const { readAdapter } = await import("../models/peft/read_adapter.ts"); // with all families
      const lora = await readAdapter(this.#o.data.adapterPath(folder), { spec, name: model });
      while (!await this.#tryAdd(engine, engineName(adapter), lora));
    } catch (cause) {
      if (!(cause instanceof OatmillError)) throw cause;
      const id = adapterId(`${model}@${shortVersion(version)}`, name);
      throw new OatmillError(cause.code, `Cannot use ${shown(id)}: ${cause.message}`, "model", { cause });
    }
    log("info", "adapter loaded", { model, version: shortVersion(version), adapter: name });
  }
  /** @returns false when another one, which nobody used for the longest time, has made room */
  async #tryAdd(engine: Engine, key: string, lora: Parameters<Engine["addAdapter"]>[1]): Promise<boolean> {
    try {
      await engine.addAdapter(key, lora);
      return true;
    } catch (error) {
      const idle = error instanceof OatmillError && MENDABLE.includes(error.code)
        ? this.#longestIdle(engine)
        : null;
      if (idle === null) throw error;
      await this.#unload(engine, idle);
      return false;
    }
  }
  #longestIdle(engine: Engine): string | null {
    const idle = [...this.#loads.get(engine) ?? []].filter(([key, { uses }]) =>
      uses === 0 && engine.adapters().includes(key)
    );
    return idle.sort(([, a], [, b]) => a.lastUsed - b.lastUsed)[0]?.[0] ?? null;
  }
  /** Also of an adapter that is on its way into the engine, which may be closed meanwhile. */
  async #unload(engine: Engine, key: string): Promise<void> {
    const load = this.#loads.get(engine)?.get(key);
    if (!load) return;
    this.#loads.get(engine)!.delete(key);
    await load.ready.then(() => engine.removeAdapter(key)).catch(() => {});
  }
}

/** What engines call it: an adapter that is deleted and its successor of the same name must not meet there. */
const engineName = ({ name, folder }: StoredAdapter): string => `${name}-${folder.slice(0, 8)}`;
