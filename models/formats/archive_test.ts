import assert from "node:assert/strict";
import fc from "fast-check";
// @ts-types="@types/tar-stream"
import tar from "tar-stream";
import { OatmillError } from "../../errors.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import { extractArchive } from "./archive.ts";
import { entrySegments } from "./archive_name.ts";

const LIMITS = { maxBytes: 8 * 1024 * 1024, maxFiles: 100 };

async function inTempDir(run: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await run(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

async function attempt(file: string, into: string, limits = LIMITS): Promise<string[] | OatmillError> {
  try {
    return await extractArchive(file, into, limits);
  } catch (error) {
    if (error instanceof OatmillError) return error;
    throw error;
  }
}

function namesBelow(dir: string): string[] {
  return [...Deno.readDirSync(dir)].flatMap((entry) => {
    assert.ok(!entry.isSymlink, `${entry.name} is a link`);
    return entry.isDirectory ? namesBelow(`${dir}/${entry.name}`) : [entry.name];
  });
}

oracleTest(
  "extractArchive() refuses hostile archives and leaves nothing behind",
  "oracles/attacks/archives",
  async () => {
    const { files } = JSON.parse(await Deno.readTextFile(shared("oracles/attacks/MANIFEST.json")));
    for (const { file, expect, error_should_mention } of files) {
      if (!file.startsWith("archives/")) continue;
      await inTempDir(async (dir) => {
        const into = `${dir}/deep/er/into`;
        const result = await attempt(shared(`oracles/attacks/${file}`).pathname, into);
        const refused = result instanceof OatmillError;
        // What an archive without a model lacks is for the reader of the folder to say.
        if (expect === "refuse" && !file.includes("no_model")) assert.ok(refused, `${file} was extracted`);
        if (expect === "accept") assert.ok(!refused, `${file}: ${refused && result.message}`);
        if (!refused) return assert.deepEqual(namesBelow(dir).length, result.length, file);
        assert.equal(result.code, "invalid_archive");
        assert.match(result.message, new RegExp(error_should_mention, "i"), file);
        assert.deepEqual(namesBelow(dir), [], file);
      });
    }
  },
);

oracleTest(
  "extractArchive() gives the same files from .zip and .tar.gz",
  "oracles/attacks/archives",
  async () => {
    const hashes: string[] = [];
    for (const kind of ["zip", "tar.gz"]) {
      await inTempDir(async (dir) => {
        const names = await extractArchive(
          shared(`oracles/attacks/archives/ok.${kind}`).pathname,
          dir,
          LIMITS,
        );
        assert.deepEqual(names.toSorted(), ["config.json", "model.safetensors"]);
        const bytes = await Deno.readFile(`${dir}/model.safetensors`);
        hashes.push(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex());
      });
    }
    assert.equal(hashes[0], hashes[1]);
  },
);

oracleTest(
  "a zip whose entries are longer than they claim is refused, also before they are read",
  "oracles/attacks/archives",
  async () => {
    const zip = await Deno.readFile(shared("oracles/attacks/archives/ok.zip")),
      view = new DataView(zip.buffer);
    const SIGNATURE = 0x02014b50, SIZE_AT = 24; // of an entry in the central directory
    for (let at = 0; at + SIZE_AT + 4 <= zip.length; at++) {
      if (view.getUint32(at, true) !== SIGNATURE) continue;
      view.setUint32(at + SIZE_AT, view.getUint32(at + SIZE_AT, true) - 2, true);
    }
    await inTempDir(async (dir) => {
      await Deno.writeFile(`${dir}/a.zip`, zip);
      const result = await attempt(`${dir}/a.zip`, `${dir}/into`);
      assert.ok(result instanceof OatmillError && result.code === "invalid_archive", String(result));
      assert.match(result.message, /too many bytes/);
      assert.deepEqual(namesBelow(`${dir}/into`), []);
    });
  },
);

interface Entry {
  readonly name: string;
  readonly content: Uint8Array;
}

async function writeTar(path: string, entries: readonly Entry[]): Promise<void> {
  const pack = tar.pack();
  const chunks: Uint8Array[] = [];
  pack.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  for (const { name, content } of entries) pack.entry({ name }, new TextDecoder("latin1").decode(content));
  const ended = new Promise((resolve) => pack.on("end", resolve));
  pack.finalize();
  await ended;
  await Deno.writeFile(path, new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer()));
}

Deno.test("extractArchive() gives back what was packed", async () => {
  const segment = fc.stringMatching(/^[a-z0-9_-]{1,12}$/);
  const path = fc.array(segment, { minLength: 1, maxLength: 3 }).map((parts) => `f/${parts.join("/")}/x.bin`);
  const ascii = fc.uint8Array({ max: 127, maxLength: 2000 });
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(path, { maxLength: 4 }), ascii, async (names, content) => {
      await inTempDir(async (dir) => {
        await writeTar(`${dir}/a.tar`, names.map((name) => ({ name, content })));
        if (names.length === 0) return;
        assert.deepEqual(await extractArchive(`${dir}/a.tar`, `${dir}/out`, LIMITS), names);
        for (const name of names) assert.deepEqual(await Deno.readFile(`${dir}/out/${name}`), content);
      });
    }),
    { numRuns: 20 },
  );
});

Deno.test("extractArchive() counts bytes and files over all entries", async () => {
  await inTempDir(async (dir) => {
    const content = new Uint8Array(1000);
    await writeTar(`${dir}/a.tar`, ["a", "b", "c"].map((name) => ({ name, content })));
    for (const limits of [{ maxBytes: 2999, maxFiles: 9 }, { maxBytes: 3000, maxFiles: 2 }]) {
      assert.match(String(await attempt(`${dir}/a.tar`, `${dir}/out`, limits)), /limit/);
      assert.deepEqual(namesBelow(`${dir}/out`), []);
    }
    assert.deepEqual(await attempt(`${dir}/a.tar`, `${dir}/out`, { maxBytes: 3000, maxFiles: 3 }), [
      "a",
      "b",
      "c",
    ]);
  });
});

Deno.test("entrySegments() never yields a segment that leads elsewhere", () => {
  const part = fc.oneof(fc.constantFrom("..", ".", "", "\\", "C:", "a", "\0", "~"), fc.string());
  fc.assert(fc.property(fc.array(part), (parts) => {
    try {
      for (const segment of entrySegments(parts.join("/"))) {
        assert.doesNotMatch(segment, /^\.{0,2}$|[/\\:\0]/);
      }
    } catch (error) {
      assert.ok(error instanceof OatmillError && error.code === "invalid_archive", String(error));
    }
  }));
});
