import assert from "node:assert/strict";
import { join } from "node:path";
import { FakeTime } from "@std/testing/time";
import { isVerified, rememberVerified } from "./verified.ts";

const NAME = "weights", sha256 = "ab".repeat(32);

async function withFile(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(folder, NAME), "weights");
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
const verified = async (folder: string, hash = sha256) =>
  await isVerified(folder, NAME, { info: await Deno.stat(join(folder, NAME)), sha256: hash });
const remember = async (folder: string, fresh = true) =>
  await rememberVerified(folder, NAME, { info: await Deno.stat(join(folder, NAME)), sha256, fresh });

Deno.test("a remembered file is verified for its hash only, also under another folder's name", () =>
  withFile(async (folder) => {
    assert.equal(await verified(folder), false);
    assert.ok(await remember(folder));
    assert.ok(await verified(folder));
    assert.equal(await verified(folder, "cd".repeat(32)), false);
    const renamed = `${folder}-renamed`;
    await Deno.rename(folder, renamed);
    assert.ok(await verified(renamed));
    await Deno.rename(renamed, folder);
  }));

Deno.test("a file that was written to, replaced or copied is not verified", () =>
  withFile(async (folder) => {
    const path = join(folder, NAME);
    await remember(folder);
    const { mtime } = await Deno.stat(path);
    await Deno.writeTextFile(path, "WEIGHTS");
    await Deno.utime(path, mtime!, new Date(mtime!.getTime() + 1));
    assert.equal(await verified(folder), false, "another time");

    await remember(folder);
    const info = await Deno.stat(path);
    await Deno.copyFile(path, `${path}.copy`);
    await Deno.utime(`${path}.copy`, info.atime!, info.mtime!);
    await Deno.rename(`${path}.copy`, path);
    assert.equal(await verified(folder), false, "another file of the same size and time");

    await remember(folder);
    await Deno.truncate(path, 3);
    await Deno.utime(path, info.atime!, info.mtime!);
    assert.equal(await verified(folder), false, "another size");

    await Deno.writeTextFile(`${path}.verified`, "{");
    assert.equal(await verified(folder), false, "an unreadable note");
  }));

Deno.test("a file that may still change within its times is remembered only by its writer", () =>
  withFile(async (folder) => {
    assert.equal(await remember(folder, false), false);
    assert.equal(await verified(folder), false);
    const askedMs = Date.now(), info = await Deno.stat(join(folder, NAME));
    using _ = new FakeTime(askedMs + 5000);
    assert.equal(await rememberVerified(folder, NAME, { info, askedMs, sha256 }), false, "hashing took long");
    assert.ok(await remember(folder, false));
    assert.ok(await verified(folder));
  }));
