/** The files of the model that comes with the repository, as an upload sends them. Tests only. */
import { join } from "node:path";
import { ROOT } from "../server_process.ts";

const FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] as const;

export async function bundledFiles(): Promise<Record<string, Uint8Array<ArrayBuffer>>> {
  const read = FILES.map(async (name) =>
    [name, await Deno.readFile(join(ROOT, "models/default", name))] as const
  );
  return Object.fromEntries(await Promise.all(read));
}
