/** Every folder of `../shared/oracles` has tests: what the test modules register is asked of them, no list is kept. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { oracleTest, shared } from "../models/testing/shared.ts";
import type { CollectedTest } from "./collect_oracle_tests.ts";
import { ROOT } from "./server_process.ts";

const SKIPPED = ["node_modules", "testing"];

/** Paths of all test modules that test on shared files. */
async function oracleModules(folder = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(join(ROOT, folder))) {
    const path = join(folder, name);
    if (isDirectory && !name.startsWith(".") && !SKIPPED.includes(name)) {
      found.push(...await oracleModules(path));
    }
    if (!name.endsWith("_test.ts")) continue;
    if ((await Deno.readTextFile(join(ROOT, path))).includes("oracleTest(")) found.push(path);
  }
  return found.sort();
}

async function collect(modules: readonly string[]): Promise<CollectedTest[]> {
  const permissions = [
    "--allow-read",
    "--allow-write",
    "--allow-env",
    "--allow-sys",
    "--allow-ffi",
    "--allow-net=127.0.0.1",
  ];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: ["run", "--no-check", "--no-prompt", ...permissions, "tests/collect_oracle_tests.ts", ...modules],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout).trim().split("\n").at(-1)!);
}

const foldersOf = (path: string): string[] =>
  [...Deno.readDirSync(shared(path))].filter(({ isDirectory }) => isDirectory).map(({ name }) =>
    `${path}/${name}`
  );

interface IndexEntry {
  readonly kind: string;
}

oracleTest("every folder of oracles has a test", "oracles", async () => {
  const tests = await collect(await oracleModules());
  const of = (folder: string, room = "") =>
    tests.filter((test) => test.folder === folder && test.module.startsWith(room));
  const folders = foldersOf("oracles");
  const all = [...folders.filter((folder) => folder !== "oracles/attacks"), ...foldersOf("oracles/attacks")];
  assert.deepEqual(all.filter((folder) => of(folder).length === 0), [], "folders without a test");
  // A family is more than read: the engine runs it, and compression compresses it.
  const index: Record<string, IndexEntry> = JSON.parse(await Deno.readTextFile(shared("oracles/INDEX.json")));
  const families = Object.keys(index).map((name) => `oracles/${name}`).filter((folder) =>
    folders.includes(folder)
  );
  assert.ok(families.length > 30);
  for (const room of ["models/", "engine/", "compress/"]) {
    assert.deepEqual(
      families.filter((folder) => of(folder, room).length === 0),
      [],
      `families without a test in ${room}`,
    );
  }
});
