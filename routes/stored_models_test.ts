import assert from "node:assert/strict";
import { join } from "node:path";
import { artifactVersion } from "../models/formats/artifact_version.ts";
import { AdapterStore } from "../store/adapter_store.ts";
import { DataFolder } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { ModelStore } from "../store/model_store.ts";
import { setLogSink } from "../telemetry/log.ts";
import { fakeHeader } from "../tests/fake_server.ts";
import { tidyModels } from "./stored_models.ts";

async function withModels(
  run: (data: DataFolder, models: ModelStore, adapters: AdapterStore) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir(), formerSink = setLogSink(() => {});
  try {
    using data = await DataFolder.open(root);
    using database = openDatabase(data.database);
    await run(data, new ModelStore(database), new AdapterStore(database));
  } finally {
    setLogSink(formerSink);
    await Deno.remove(root, { recursive: true });
  }
}
const publish = async (data: DataFolder, header: string): Promise<string> => {
  const path = await data.temporary();
  await Deno.writeTextFile(join(path, "oatmill.json"), header);
  return await data.publish(path);
};
const row = (id: string, version: string, folder: string) => ({
  id,
  version,
  folder,
  createdMs: 0,
  info: {},
});

Deno.test("models that came before versions get theirs from their artifact, damaged ones a version of their own", () =>
  withModels(async (data, models, adapters) => {
    const header = fakeHeader("a");
    models.add(row("a", "", await publish(data, JSON.stringify(header))));
    models.add(row("b", "", await publish(data, "{")));
    models.add(row("c", "", await publish(data, "{")));
    for (let start = 0; start < 2; start++) {
      await tidyModels(data, { models, adapters });
      assert.equal(models.get("a")!.version, artifactVersion(header));
      const [b, c] = ["b", "c"].map((id) => models.get(id)!.version);
      assert.match(b, /^[0-9a-f]{64}$/);
      assert.notEqual(b, c);
    }
  }));

Deno.test("where a version's files are gone, its name points at the one before, or goes too", () =>
  withModels(async (data, models, adapters) => {
    const kept = await publish(data, "{}"), orphan = await publish(data, "{}");
    models.add(row("a", "1", kept));
    models.add(row("a", "2", "lost"));
    models.point("a", "2");
    models.add(row("b", "3", "lost too"));
    await tidyModels(data, { models, adapters });
    assert.deepEqual(models.all().map((m) => [m.id, m.version]), [["a", "1"]]);
    await assert.rejects(Deno.stat(data.modelPath(orphan)), Deno.errors.NotFound);
    models.add(row("a", "4", "new"));
    assert.equal(models.get("a")!.version, "1");
  }));

Deno.test("a start removes the files of adapters whose model is gone, and keeps the others'", () =>
  withModels(async (data, models, adapters) => {
    const publishAdapter = async () => await data.publishAdapter(await data.temporary());
    models.add(row("a", "1", await publish(data, "{}")));
    models.add(row("b", "2", await publish(data, "{}")));
    const [kept, orphan, lost] = await Promise.all([1, 2, 3].map(publishAdapter));
    const adapter = (model: string, folder: string) => ({ model, name: "x", folder, createdMs: 0, info: {} });
    assert.deepEqual([adapters.add(adapter("a", kept)), adapters.add(adapter("b", lost))], [true, true]);
    assert.deepEqual([adapters.add(adapter("a", "new")), adapters.add(adapter("c", "new"))], [false, false]);
    models.remove("b", ["2"]);
    adapters.add({ ...adapter("a", "gone"), name: "y" });
    await tidyModels(data, { models, adapters });
    const left = (await Array.fromAsync(Deno.readDir(join(data.root, "adapters")))).map(({ name }) => name);
    assert.deepEqual([left, adapters.all().map((a) => a.folder)], [[kept], [kept]]);
    assert.ok(left.every((folder) => folder !== orphan));
  }));
