/** Hostile uploads to the real server: each is refused with its file and defect, in bounded memory, and nothing is left. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ERRORS } from "../errors.ts";
import { type Attack, attacks, peakBytes } from "../models/testing/attacks.ts";
import { oracleTest } from "../models/testing/shared.ts";
import { ServerProcess } from "./server_process.ts";
import { filesOf, refusal } from "./testing/hostile_uploads.ts";
import { until } from "./until.ts";

/** What the server may take more at its peak than before, over all uploads; compression workers are part of it. */
const MAX_GROWTH_BYTES = 512 * 2 ** 20;
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
