import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { openDatabase } from "./database.ts";
import { ModelStore, type StoredModel } from "./model_store.ts";

const model = (id: string, version: string, createdMs = 0): StoredModel => ({
  id,
  version,
  folder: `${id}-${version}`,
  createdMs,
  info: { bytes: createdMs },
});
const versionsOf = (store: ModelStore, id: string) => store.versions(id).map((v) => v.version);

Deno.test("ModelStore knows the last used model; a note that comes late changes nothing", () => {
  using database = openDatabase(":memory:");
  const store = new ModelStore(database);
  assert.equal(store.lastUsed(), null);
  for (const [i, id] of ["a", "b", "c"].entries()) store.add(model(id, "1", i));
  assert.equal(store.lastUsed(), "c");
  store.use("a", 20);
  store.use("b", 10);
  assert.equal(store.lastUsed(), "a");
  store.use("b", 30);
  store.use("b", 15);
  assert.equal(store.lastUsed(), "b");
});

Deno.test("a new name points at its version, a name that has one stays until it is pointed elsewhere", () => {
  using database = openDatabase(":memory:");
  const store = new ModelStore(database);
  store.add(model("m", "1", 1));
  store.add(model("other", "1", 2));
  store.add(model("m", "2", 3));
  assert.equal(store.get("m")!.version, "1");
  store.point("m", "2");
  assert.deepEqual(versionsOf(store, "m"), ["2", "1"]);
  assert.deepEqual(store.list(), [model("m", "2", 3), model("other", "1", 2)]);
  store.point("m", "1");
  store.add(model("m", "3", 4));
  assert.deepEqual(versionsOf(store, "m"), ["1", "2", "3"]);
  assert.throws(() => store.add(model("m", "3")), /UNIQUE/);
  assert.equal(store.all().length, 4);
});

Deno.test("versions go one by one or together, the name with the last of them", () => {
  using database = openDatabase(":memory:");
  const store = new ModelStore(database);
  for (const version of ["1", "2", "3"]) store.add(model("m", version));
  store.remove("m", ["2"]);
  assert.deepEqual(versionsOf(store, "m"), ["1", "3"]);
  store.remove("m", ["1", "3"]);
  assert.equal(store.get("m"), null);
  assert.equal(store.lastUsed(), null);
  store.remove("m", ["1"]);
});

Deno.test("models that came before versions keep their names, folders and last uses", async () => {
  const path = await Deno.makeTempDir();
  try {
    const file = join(path, "oatmill.db");
    const old = new DatabaseSync(file);
    old.exec(`CREATE TABLE models (
        id TEXT PRIMARY KEY, folder TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL, info TEXT NOT NULL, used_ms INTEGER
      ) STRICT;
      INSERT INTO models VALUES ('a', 'fa', 1, '{"bytes":1}', 9), ('b', 'fb', 2, '{"bytes":2}', NULL);
      PRAGMA user_version = 3;`);
    // Steps between that version and this one may need what else there was.
    old.exec(
      "CREATE TABLE jobs (id TEXT PRIMARY KEY, model TEXT, state TEXT, created_ms INTEGER, recipe TEXT, files TEXT)",
    );
    old.close();
    for (let start = 0; start < 2; start++) {
      using database = openDatabase(file);
      const store = new ModelStore(database);
      assert.deepEqual(store.list().map((m) => [m.id, m.folder, m.createdMs]), [["a", "fa", 1], [
        "b",
        "fb",
        2,
      ]]);
      assert.equal(store.lastUsed(), "a");
      assert.deepEqual(store.get("a")!.info, { bytes: 1 });
      assert.equal(store.get("b")!.version, start === 0 ? "" : "abc");
      store.identify("fb", "abc");
    }
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});
