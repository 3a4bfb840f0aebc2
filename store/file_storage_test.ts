import assert from "node:assert/strict";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { OatmillError } from "../errors.ts";
import { DataFolder } from "./data_folder.ts";
import { openDatabase } from "./database.ts";
import { KeyStore } from "./key_store.ts";
import { ModelStore } from "./model_store.ts";
import { openStorage, type Storage } from "./storage.ts";
import { storeStream, UploadQuota } from "./upload.ts";

interface Opened {
  readonly data: DataFolder;
  readonly database: DatabaseSync;
  readonly storage: Storage;
  readonly lost: string[];
}
async function withStorage(root: string, run: (opened: Opened) => Promise<void>): Promise<void> {
  using data = await DataFolder.open(root);
  const database = openDatabase(data.database), lost: string[] = [];
  const storage = await openStorage({
    database,
    data,
    quotaBytes: Infinity,
    neededBy: () => null,
    onDamage: () => {},
    onLostPart: (part) => lost.push(part),
    mostParts: 3,
  });
  try {
    await run({ data, database, storage, lost });
  } finally {
    storage.uploads[Symbol.dispose]();
    database.close();
  }
}
async function withRoot(run: (root: string) => Promise<void>): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    await run(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}
/** Content as a request leaves it in `tmp/`. */
async function received(data: DataFolder, text: string) {
  const path = join(await data.temporary(), "content");
  async function* chunks() {
    yield await Promise.resolve(new TextEncoder().encode(text));
  }
  return { path, ...await storeStream(chunks(), path, new UploadQuota(1_000_000)) };
}
const about = { filename: "a.txt", purpose: "user_data" };
const code = (expected: string) => (error: unknown) =>
  error instanceof OatmillError && error.code === expected;
const names = (path: string) => [...Deno.readDirSync(path)].map((e) => e.name).sort();
async function textOf(storage: Storage, id: string): Promise<string> {
  return await new Response(ReadableStream.from(storage.files.read(id))).text();
}

Deno.test("a restart keeps what rows name and deletes what a crash left", () =>
  withRoot(async (root) => {
    let file = "", upload = "", part = "";
    await withStorage(root, async ({ data, storage }) => {
      file = (await storage.files.add(await received(data, "kept"), about)).id;
      upload = (await storage.uploads.create({ ...about, bytes: 4 })).id;
      part = (await storage.uploads.addPart(upload, await received(data, "ab"))).id;
      await storage.uploads.addPart(upload, await received(data, "cd"));
    });
    const orphan = "00".repeat(32);
    await Deno.mkdir(join(root, "blobs/00"));
    await Deno.writeTextFile(join(root, "blobs/00", orphan), "no row");
    await Deno.mkdir(join(root, "uploads/upload_gone"));
    await Deno.writeTextFile(join(root, "uploads", upload, "part_of_no_row"), "x");
    await Deno.truncate(join(root, "uploads", upload, part), 1);
    await withStorage(root, async ({ storage, lost }) => {
      assert.equal(await textOf(storage, file), "kept");
      assert.deepEqual(names(join(root, "blobs/00")), []);
      assert.deepEqual(names(join(root, "uploads")), [upload]);
      assert.deepEqual(lost, [part]);
      assert.deepEqual(
        names(join(root, "uploads", upload)),
        storage.uploads.parts(upload).map(({ id }) => id),
      );
    });
  }));

Deno.test("content that is stored and deleted at once is there while a file has it", () =>
  withRoot((root) =>
    withStorage(root, async ({ data, storage }) => {
      for (let i = 0; i < 20; i++) {
        const { id } = await storage.files.add(await received(data, "same"), about);
        const adding = storage.files.add(await received(data, "same"), about);
        storage.files.remove(id);
        const again = (await adding).id;
        assert.equal(await textOf(storage, again), "same");
        storage.files.remove(again);
      }
      assert.deepEqual(names(join(root, "blobs")).flatMap((name) => names(join(root, "blobs", name))), []);
    })
  ));

Deno.test("a file that is deleted while it is linked or read is whole to who began before", () =>
  withRoot((root) =>
    withStorage(root, async ({ data, storage }) => {
      const target = join(await data.temporary(), "linked");
      const text = "long ".repeat(100_000); // several chunks
      const { id } = await storage.files.add(await received(data, text), about);
      const linking = storage.files.link(id, target), chunks = storage.files.read(id);
      const first = chunks.next();
      storage.files.remove(id);
      assert.equal((await linking).id, id);
      assert.equal(await Deno.readTextFile(target), text);
      const rest = await Array.fromAsync(chunks, ({ length }) => length);
      assert.equal(rest.reduce((sum, n) => sum + n, (await first).value!.length), text.length);
      await assert.rejects(storage.files.link(id, `${target}2`), code("not_found"));
      assert.deepEqual(names(join(root, "blobs")).flatMap((name) => names(join(root, "blobs", name))), []);
    })
  ));

Deno.test("an upload takes so many parts and no more; the same again are none", () =>
  withRoot((root) =>
    withStorage(root, async ({ data, storage: { uploads } }) => {
      const { id } = await uploads.create({ ...about, bytes: 9 });
      for (const text of ["a", "b", "c", "b"]) await uploads.addPart(id, await received(data, text));
      await assert.rejects(
        async () => await uploads.addPart(id, await received(data, "d")),
        code("invalid_request"),
      );
      assert.equal(uploads.parts(id).length, 3);
      assert.equal(names(join(root, "uploads", id)).length, 3);
    })
  ));

Deno.test("a link never writes over what is there", () =>
  withRoot((root) =>
    withStorage(root, async ({ data, storage }) => {
      const target = join(await data.temporary(), "linked");
      const first = await storage.files.add(await received(data, "first"), about);
      const second = await storage.files.add(await received(data, "second"), about);
      await storage.files.link(first.id, target);
      await assert.rejects(storage.files.link(second.id, target), Deno.errors.AlreadyExists);
      assert.equal(await textOf(storage, first.id), "first");
    })
  ));

Deno.test("a database that takes no writes refuses files, and nothing that only takes notes", () =>
  withRoot((root) =>
    withStorage(root, async ({ data, database, storage }) => {
      const { id } = await storage.files.add(await received(data, "kept"), about);
      const keys = new KeyStore(database), models = new ModelStore(database);
      const { key } = keys.add("reader", ["read"]);
      database.exec("PRAGMA query_only = ON");
      await assert.rejects(storage.files.add(await received(data, "new"), about), code("storage_failed"));
      assert.throws(() => storage.files.remove(id), code("storage_failed"));
      assert.equal(keys.find(key)?.name, "reader");
      models.use("any", 1);
      assert.equal(await textOf(storage, id), "kept");
      database.exec("PRAGMA query_only = OFF");
      assert.equal(names(join(root, "blobs")).flatMap((name) => names(join(root, "blobs", name))).length, 1);
    })
  ));

Deno.test("openDatabase() refuses a damaged database and leaves it as it is", () =>
  withRoot(async (root) => {
    const path = join(root, "oatmill.db");
    openDatabase(path).close();
    const whole = await Deno.readFile(path);
    for (const bytes of [whole.slice(0, whole.length / 2), new TextEncoder().encode("text ".repeat(99))]) {
      await Deno.writeFile(path, bytes);
      assert.throws(() => openDatabase(path), code("storage_failed"));
      assert.deepEqual(await Deno.readFile(path), bytes);
    }
  }));
