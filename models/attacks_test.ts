import assert from "node:assert/strict";
import { basename } from "node:path";
import { ERRORS, OatmillError } from "../errors.ts";
import type { Checkpoint, WeightRole } from "./checkpoint.ts";
import type { LinearName } from "./spec.ts";
import { openCheckpoint } from "./open.ts";
import { type Attack, attacks, peakBytes } from "./testing/attacks.ts";
import { oracleTest, shared } from "./testing/shared.ts";

/** The manifest asks for 2 s of every file; ten times as much passes on a machine that is shared. */
const MAX_MS = 20_000;

/** Of the process's peak, by one file. */
const MAX_GROWTH_BYTES = 256 * 2 ** 20;

/** Every weight, as compressing or packing would read it. */
async function readAll(checkpoint: Checkpoint): Promise<void> {
  const { blocks } = checkpoint.spec;
  const names: (LinearName | "attnNorm" | "mlpNorm")[] = [
    "attnNorm",
    "q",
    "k",
    "v",
    "o",
    "mlpNorm",
    "gate",
    "up",
    "down",
  ];
  const roles: WeightRole[] = ["embedding", "finalNorm", "head"];
  for (let b = 0; b < blocks; b++) roles.push(...names.map((name): WeightRole => `block.${b}.${name}`));
  for (const role of roles) await checkpoint.read(role);
}

async function attempt(path: string): Promise<OatmillError | null> {
  try {
    const checkpoint = await openCheckpoint(path);
    try {
      await readAll(checkpoint);
    } finally {
      checkpoint.close();
    }
    return null;
  } catch (error) {
    if (error instanceof OatmillError) return error;
    throw error;
  }
}

/** Names of the files that a message may call the culprit. */
function namesOf(path: string): string[] {
  return Deno.statSync(path).isDirectory
    ? [...Deno.readDirSync(path)].map(({ name }) => name)
    : [basename(path)];
}

async function check({ file, expect, error_should_mention }: Attack, path: string): Promise<void> {
  const start = performance.now(), peak = peakBytes();
  const error = await attempt(path);
  assert.ok(performance.now() - start < MAX_MS, `${file} took too long`);
  assert.ok(peakBytes() - peak < MAX_GROWTH_BYTES, `${file} took ${peakBytes() - peak} bytes`);
  if (expect === "accept") assert.equal(error, null, `${file}: ${error?.message}`);
  if (expect === "refuse") {
    assert.ok(error, `${file} was accepted`);
    assert.equal(ERRORS[error.code].status, 400, file);
    const { message } = error, named = namesOf(path).some((name) => message.includes(name));
    assert.ok(named || /\.safetensors"|safetensors files/.test(message), `${file}: no file in "${message}"`);
  }
  if (error && error_should_mention) assert.match(error.message, new RegExp(error_should_mention, "i"), file);
  assert.ok(!error?.message.includes("root:"), "the message holds a foreign file");
  assert.equal(Reflect.get({}, "polluted"), undefined);
}

/** A folder with links to the given files. */
async function inFolder(
  files: Record<string, string>,
  run: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  for (const [name, from] of Object.entries(files)) await Deno.copyFile(from, `${folder}/${name}`);
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const at = (path: string) => shared(`oracles/attacks/${path}`).pathname;

oracleTest(
  "openCheckpoint() takes the valid model that the attacks damage",
  "oracles/attacks/base_ok",
  async () => {
    assert.equal(await attempt(at("base_ok")), null);
  },
);

oracleTest("openCheckpoint() and read() refuse hostile models", "oracles/attacks/model", async () => {
  for (const attack of await attacks("model")) await check(attack, at(attack.file.replace(/\/[^/]*$/, "")));
});

oracleTest("openCheckpoint() refuses hostile shard indices", "oracles/attacks/index", async () => {
  for (const attack of await attacks("index")) await check(attack, at(attack.file.replace(/\/[^/]*$/, "")));
});

oracleTest("openCheckpoint() refuses hostile config.json files", "oracles/attacks/config", async () => {
  for (const attack of await attacks("config")) {
    const files = { "config.json": at(attack.file), "model.safetensors": at("base_ok/model.safetensors") };
    await inFolder(files, (folder) => check(attack, folder));
  }
});

oracleTest("openCheckpoint() refuses hostile GGUF files", "oracles/attacks/gguf", async () => {
  for (const attack of await attacks("gguf")) await check(attack, at(attack.file));
});

oracleTest("openCheckpoint() refuses hostile safetensors files", "oracles/attacks/safetensors", async () => {
  for (const attack of await attacks("safetensors")) {
    if (attack.file.endsWith(".bin")) await check(attack, at(attack.file));
    // As the weights of a valid config, every file is refused: the well-formed ones lack its tensors.
    else {
      const files = { "config.json": at("base_ok/config.json"), "model.safetensors": at(attack.file) };
      const wanted = attack.expect === "refuse" ? attack.error_should_mention : undefined;
      await inFolder(
        files,
        (folder) => check({ ...attack, expect: "refuse", error_should_mention: wanted }, folder),
      );
    }
  }
});
