import assert from "node:assert/strict";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { ERRORS } from "../errors.ts";
import { type Attack, attacks } from "./testing/attacks.ts";
import type { ReadModel } from "./testing/read_models.ts";
import { oracleTest, shared } from "./testing/shared.ts";

const READER = fileURLToPath(new URL("testing/read_models.ts", import.meta.url));

/** The manifest asks for 2 s of every file; ten times as much passes on a machine that is shared. */
const MAX_MS = 20_000;

/** Of the process's peak, by one file. */
const MAX_GROWTH_BYTES = 256 * 2 ** 20;

/** Names of the files that a message may call the culprit. */
function namesOf(path: string): string[] {
  return Deno.statSync(path).isDirectory
    ? [...Deno.readDirSync(path)].map(({ name }) => name)
    : [basename(path)];
}

/** Reads them in a process of their own. */
async function read(paths: readonly string[]): Promise<ReadModel[]> {
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--no-prompt", "--allow-read", "--allow-run=cat", READER, ...paths],
  }).output();
  const lines = new TextDecoder().decode(stdout).split("\n").filter(Boolean);
  assert.equal(lines.length, paths.length, `${paths[lines.length]}: ${new TextDecoder().decode(stderr)}`);
  return lines.map((line) => JSON.parse(line));
}

interface Attempt {
  readonly attack: Attack;
  readonly path: string;
}

async function check(attempts: readonly Attempt[]): Promise<void> {
  const found = await read(attempts.map(({ path }) => path));
  attempts.forEach((attempt, i) => checkOne(attempt, found[i]));
}

function checkOne({ attack, path }: Attempt, { error, ms, grownBytes, polluted }: ReadModel): void {
  const { file, expect, error_should_mention } = attack;
  assert.ok(ms < MAX_MS, `${file} took too long`);
  assert.ok(grownBytes < MAX_GROWTH_BYTES, `${file} took ${grownBytes} bytes`);
  if (expect === "accept") assert.equal(error, null, `${file}: ${error?.message}`);
  if (expect === "refuse") {
    assert.ok(error, `${file} was accepted`);
    assert.equal(ERRORS[error.code].status, 400, file);
    const { message } = error, named = namesOf(path).some((name) => message.includes(name));
    assert.ok(named || /\.safetensors"|safetensors files/.test(message), `${file}: no file in "${message}"`);
  }
  if (error && error_should_mention) assert.match(error.message, new RegExp(error_should_mention, "i"), file);
  assert.ok(!error?.message.includes("root:"), "the message holds a foreign file");
  assert.ok(!polluted, file);
}

/** The same, each in a folder of its own with copies of the given files. */
async function checkInFolders(
  cases: readonly { readonly attack: Attack; readonly files: Readonly<Record<string, string>> }[],
): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    const attempts: Attempt[] = [];
    for (const { attack, files } of cases) {
      const path = await Deno.makeTempDir({ dir: root });
      for (const [name, from] of Object.entries(files)) await Deno.copyFile(from, `${path}/${name}`);
      attempts.push({ attack, path });
    }
    await check(attempts);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

const at = (path: string) => shared(`oracles/attacks/${path}`).pathname;

/** The file's own folder. */
const inPlace = (attack: Attack): Attempt => ({ attack, path: at(attack.file.replace(/\/[^/]*$/, "")) });

oracleTest(
  "openCheckpoint() takes the valid model that the attacks damage",
  "oracles/attacks/base_ok",
  async () => {
    assert.equal((await read([at("base_ok")]))[0].error, null);
  },
);

oracleTest("openCheckpoint() and read() refuse hostile models", "oracles/attacks/model", async () => {
  await check((await attacks("model")).map(inPlace));
});

oracleTest("openCheckpoint() refuses hostile shard indices", "oracles/attacks/index", async () => {
  await check((await attacks("index")).map(inPlace));
});

oracleTest("openCheckpoint() refuses hostile config.json files", "oracles/attacks/config", async () => {
  const weights = at("base_ok/model.safetensors");
  await checkInFolders(
    (await attacks("config")).map((attack) => ({
      attack,
      files: { "config.json": at(attack.file), "model.safetensors": weights },
    })),
  );
});

oracleTest("openCheckpoint() refuses hostile GGUF files", "oracles/attacks/gguf", async () => {
  await check((await attacks("gguf")).map((attack) => ({ attack, path: at(attack.file) })));
});

oracleTest("openCheckpoint() refuses hostile safetensors files", "oracles/attacks/safetensors", async () => {
  const all = await attacks("safetensors"), pickles = all.filter(({ file }) => file.endsWith(".bin"));
  await check(pickles.map((attack) => ({ attack, path: at(attack.file) })));
  // As the weights of a valid config, every file is refused: the well-formed ones lack its tensors.
  await checkInFolders(
    all.filter((attack) => !pickles.includes(attack)).map((attack) => ({
      attack: {
        ...attack,
        expect: "refuse",
        error_should_mention: attack.expect === "refuse" ? attack.error_should_mention : undefined,
      },
      files: { "config.json": at("base_ok/config.json"), "model.safetensors": at(attack.file) },
    })),
  );
});
