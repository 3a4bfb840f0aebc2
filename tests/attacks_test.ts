/** Hostile uploads to the real server: each is refused with its file and defect, in bounded memory, and nothing is left. */
import assert from "node:assert/strict";
import { basename, dirname, join } from "node:path";
import { ERRORS } from "../errors.ts";
import { type Attack, attacks, peakBytes } from "../models/testing/attacks.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { ServerProcess } from "./server_process.ts";
import { until } from "./until.ts";

const ROOT = shared("oracles/attacks/").pathname;
/** What the server may take more at its peak than before, over all uploads; compression workers are part of it. */
const MAX_GROWTH_BYTES = 512 * 2 ** 20;
/** Small: nothing is compressed, but some files are refused late. */
const RECIPE = JSON.stringify({
  calibration: { sequences: 2, length: 32 },
  evaluate: { tokens: 64 },
  iterations: 1,
});

/** So many of each folder, spread over it; the readers' own tests take all of them. */
const OF_EACH: Readonly<Record<string, number>> = {
  archives: 3,
  config: 1,
  gguf: 2,
  model: 1,
  onnx: 1,
  safetensors: 2,
  tokenizer: 1,
};

async function sample(folder: string, count: number): Promise<Attack[]> {
  const refused = (await attacks(folder)).filter(({ file, expect }) =>
    expect === "refuse" && !/\.(bin|model)$/.test(file)
  );
  return refused.filter((_, i) => i % Math.ceil(refused.length / count) === 0);
}

/** Path of each file of an upload, by the name it is sent under. */
function filesOf({ file }: Attack): Record<string, string> {
  const path = join(ROOT, file), [kind] = file.split("/");
  const ok = (name: string) => ({ [name]: join(ROOT, "base_ok", name) });
  const model = { ...ok("config.json"), ...ok("model.safetensors") };
  switch (kind) {
    case "config":
      return { ...model, "config.json": path };
    case "safetensors":
      return { ...model, "model.safetensors": path };
    case "tokenizer":
      return { ...model, "tokenizer.json": path };
    case "model":
      return { "config.json": join(dirname(path), "config.json"), "model.safetensors": path };
    default:
      return { [basename(path)]: path };
  }
}

interface Refusal {
  readonly code: keyof typeof ERRORS;
  readonly message: string;
}

/** @returns the error, of the answer or of the job */
async function refusal(server: ServerProcess, files: Record<string, string>): Promise<Refusal | null> {
  const body = new FormData();
  body.append("name", "hostile");
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

oracleTest("the server refuses hostile uploads, and serves on", "oracles/attacks", async () => {
  const data = await Deno.makeTempDir();
  try {
    await using server = await ServerProcess.start(data, { args: ["--no-bundled"] });
    const models = () => [...Deno.readDirSync(join(data, "models"))].map(({ name }) => name).sort();
    const before = models(), peak = peakBytes(server.child.pid);
    for (const [folder, count] of Object.entries(OF_EACH)) {
      for (const attack of await sample(folder, count)) {
        const files = filesOf(attack), error = await refusal(server, files), { file } = attack;
        assert.ok(error, `${file} was accepted`);
        assert.equal(Math.floor(ERRORS[error.code].status / 100), 4, `${file}: ${error.code}`);
        assert.match(error.message, new RegExp(attack.error_should_mention ?? "", "i"), file);
        assert.doesNotMatch(error.message, /root:/, file);
      }
    }
    assert.ok(peakBytes(server.child.pid) - peak < MAX_GROWTH_BYTES, "its memory grew");
    await until(() => [...Deno.readDirSync(join(data, "tmp"))].length === 0);
    assert.deepEqual(models(), before);
    assert.deepEqual([...Deno.readDirSync(data)].filter(({ name }) => name.startsWith("pwned")), []);
    assert.equal((await server.get("/readyz")).status, 200);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});
