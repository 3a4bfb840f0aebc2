/** Brings the models of a data folder in order at a start, before anything uses them. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { artifactVersion } from "../models/formats/artifact_version.ts";
import type { AdapterStore } from "../store/adapter_store.ts";
import type { DataFolder } from "../store/data_folder.ts";
import type { ModelStore, StoredModel } from "../store/model_store.ts";
import { log } from "../telemetry/log.ts";

/** Removes what a crash or a hand in the data folder left, and finds the versions of models that came without. */
export async function tidyModels(
  data: DataFolder,
  { models, adapters }: { readonly models: ModelStore; readonly adapters: AdapterStore },
): Promise<void> {
  for (const model of models.all()) {
    const found = await Deno.stat(data.modelPath(model.folder)).then(() => true, () => false);
    if (!found) forget(models, model);
    else if (model.version === "") models.identify(model.folder, await readVersion(data, model));
  }
  for (const { model, name, folder } of adapters.all()) {
    if (await Deno.stat(data.adapterPath(folder)).then(() => true, () => false)) continue;
    adapters.remove(model, name);
    log("warn", "adapter files are gone", { model, adapter: name });
  }
  const owned = { models: models.all(), adapters: adapters.all() };
  for (const room of ["models", "adapters"] as const) {
    const orphans = await data.removeOrphans(room, new Set(owned[room].map(({ folder }) => folder)));
    for (const folder of orphans) log("warn", `removed files of no row of ${room}`, { folder });
  }
}

/** Where the current version is gone, the name points at the one before. */
function forget(models: ModelStore, { id, version }: StoredModel): void {
  const wasCurrent = models.get(id)?.version === version;
  models.remove(id, [version]);
  log("warn", "model files are gone", { model: id, version });
  const next = models.get(id);
  if (wasCurrent && next) models.point(id, next.version);
}

/** A damaged header has no content to hash: such a model is told apart from others and fails where it is loaded. */
async function readVersion(data: DataFolder, { folder, info }: StoredModel): Promise<string> {
  try {
    return artifactVersion(JSON.parse(await Deno.readTextFile(join(data.modelPath(folder), "oatmill.json"))));
  } catch {
    return createHash("sha256").update(JSON.stringify([folder, info])).digest("hex");
  }
}
