/** An adapter of a folder on this machine, given at the start of a server. */
import { join } from "node:path";
import { hashFile } from "../models/formats/artifact_files.ts";
import { ADAPTER_CONFIG } from "../models/peft/adapter_config.ts";
import { ADAPTER_WEIGHTS, adapterPickleRefused } from "../models/peft/read_adapter.ts";
import { removeTree } from "../store/data_folder.ts";
import { checkAdapter, checkName } from "./adapters.ts";
import type { Services } from "./services.ts";

export interface AdapterSource {
  readonly model: string;
  readonly name: string;
  /** PEFT's. */
  readonly folder: string;
}

/**
 * Adds a copy to the model's adapters. One of the name with the same weights stays as it is, one with others is replaced, when
 * the new one fits.
 * @throws {OatmillError} as an upload of the same files
 */
export async function ensureAdapter(
  services: Pick<Services, "data" | "registry">,
  { model, name, folder }: AdapterSource,
): Promise<void> {
  const { data, registry } = services, path = await data.temporary();
  checkName(name);
  try {
    const files = await copyFiles(folder, path);
    const { id } = registry.get(model), known = registry.adapters.list(id).find((a) => a.name === name);
    const info = await checkAdapter(services, { model: id, path, files });
    if (known?.info.sha256 === info.sha256 && known.info.bytes === info.bytes) return;
    if (known) await registry.adapters.remove(id, name);
    await registry.adapters.add({ model: id, name, path, info });
  } finally {
    await removeTree(path);
  }
}

/** What is missing, checkAdapter() says. */
async function copyFiles(from: string, to: string) {
  const files: { name: string; bytes: number; sha256: string }[] = [];
  for (const name of [ADAPTER_CONFIG, ADAPTER_WEIGHTS]) {
    const copied = await Deno.copyFile(join(from, name), join(to, name)).then(() => true, (error) => {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    });
    if (copied) files.push({ name, ...await hashFile(join(to, name)) });
  }
  const pickle = join(from, "adapter_model.bin");
  if (files.length < 2 && await Deno.stat(pickle).then(() => true, () => false)) {
    throw adapterPickleRefused("adapter_model.bin");
  }
  return files;
}
