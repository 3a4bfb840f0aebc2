/** The hostile files of `../shared/oracles/attacks` as uploads to a server. Tests only. */
import { basename, dirname, join } from "node:path";
import assert from "node:assert/strict";
import type { ErrorCode } from "../../errors.ts";
import type { Attack } from "../../models/testing/attacks.ts";
import { shared } from "../../models/testing/shared.ts";
import type { ServerProcess } from "../server_process.ts";

const ROOT = shared("oracles/attacks/").pathname;
/** Small: nothing is compressed, but some files are refused late. */
const RECIPE = JSON.stringify({
  calibration: { sequences: 2, length: 32 },
  evaluate: { tokens: 64 },
  iterations: 1,
});

/** Path of each file of an upload, by the name it is sent under. */
export function filesOf({ file }: Attack): Record<string, string> {
  const path = join(ROOT, file), [kind] = file.split("/");
  const ok = (name: string) => ({ [name]: join(ROOT, "base_ok", name) });
  const model = { ...ok("config.json"), ...ok("model.safetensors") };
  switch (kind) {
    case "config":
      return { ...model, "config.json": path };
    case "safetensors":
      if (path.endsWith(".bin")) return { ...ok("config.json"), "pytorch_model.bin": path };
      return { ...model, "model.safetensors": path };
    case "tokenizer":
      return { ...model, [path.endsWith(".model") ? "tokenizer.model" : "tokenizer.json"]: path };
    case "chat_template":
      return { ...model, "tokenizer.json": join(ROOT, "tokenizer/ok.json"), "tokenizer_config.json": path };
    case "model":
    case "index": {
      const folder = dirname(path);
      const names = [...Deno.readDirSync(folder)].filter((e) => e.isFile).map((e) => e.name);
      return Object.fromEntries(names.map((name) => [name, join(folder, name)]));
    }
    default:
      return { [basename(path)]: path };
  }
}

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
}

/** @returns the error, of the answer or of the job; null when the upload became a model */
export async function refusal(
  server: ServerProcess,
  files: Readonly<Record<string, string>>,
  name = "hostile",
): Promise<Refusal | null> {
  const body = new FormData();
  body.append("name", name);
  body.append("recipe", RECIPE);
  for (const [name, path] of Object.entries(files)) {
    body.append("files", new Blob([await Deno.readFile(path)]), name);
  }
  const response = await server.get("/v1/models", { method: "POST", body }), answer = await response.json();
  if (response.status !== 202) {
    assert.equal(Math.floor(response.status / 100), 4, JSON.stringify(answer));
    return answer.error;
  }
  await (await server.get(`/v1/compressions/${answer.id}/events?stream=true`)).text(); // ends with the job
  return (await (await server.get(`/v1/compressions/${answer.id}`)).json()).error;
}
