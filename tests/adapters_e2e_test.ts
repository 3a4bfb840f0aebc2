/** A PEFT folder on the real engine and the real server: its logits, several in one batch, and after a restart. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openModel } from "../engine/open_model.ts";
import { withAdapter } from "../engine/with_adapter.ts";
import { openArtifact } from "../models/formats/artifact.ts";
import { readAdapter } from "../models/peft/read_adapter.ts";
import { DEFAULT_MODEL, writeArtifact } from "../models/testing/artifact.ts";
import { writePeftFolder } from "../models/testing/peft_folder.ts";
import { ensureAdapter } from "../routes/ensure_adapter.ts";
import { Server } from "../routes/server.ts";
import { setLogSink } from "../telemetry/log.ts";

const FIXTURE = new URL("fixtures/peft_adapter/", import.meta.url).pathname;

Deno.test("the engine's logits through a PEFT folder are PEFT's", async () => {
  const { ids, logits, without } = JSON.parse(await Deno.readTextFile(join(FIXTURE, "expected.json")));
  const { engine, spec } = await openModel(DEFAULT_MODEL, { threads: 1, tuning: { autotune: false } });
  try {
    await engine.addAdapter("x", await readAdapter(FIXTURE, { spec, name: "default" }));
    const far = (found: Float32Array, wanted: readonly number[]) =>
      Math.max(...wanted.map((x, i) => Math.abs(x - found[i])));
    // float32 against float64: 8e-6 met.
    assert.ok(far(await withAdapter(engine, "x").logits(ids), logits) < 1e-4);
    assert.ok(far(await engine.logits(ids), without) < 1e-4);
  } finally {
    await engine.close();
  }
});

const form = async (folder: string, name: string): Promise<FormData> => {
  const body = new FormData();
  body.append("name", name);
  for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
    body.append("files", new File([await Deno.readFile(join(folder, file))], file));
  }
  return body;
};

Deno.test("adapters are served beside their model, in one batch, and after a restart", async () => {
  const root = await Deno.makeTempDir(), data = join(root, "data"), formerSink = setLogSink(() => {});
  const open = async () => {
    const engine = { threads: 1, tuning: { autotune: false } };
    const server = await Server.open({ data, otlp: null, engine, maxLoaded: 1, idleMs: 0 });
    const { port } = server.listen({ host: "127.0.0.1", port: 0 });
    const complete = async (model: string) => {
      const body = JSON.stringify({
        model,
        prompt: "Once upon a time",
        max_tokens: 16,
        temperature: 0,
        logprobs: 2,
      });
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
        method: "POST",
        headers,
        body,
      });
      const { choices, error } = await answer.json();
      return error?.message ?? choices[0].logprobs;
    };
    return { server, complete, url: `http://127.0.0.1:${port}/v1/models/m/adapters` };
  };
  try {
    const artifact = join(root, "artifact"), other = join(root, "other");
    await writeArtifact(artifact);
    const { header } = await openArtifact(artifact);
    await Deno.mkdir(other);
    await writePeftFolder(other, header.spec, { rank: 3, modules: ({ block }) => block % 2 === 0 });
    const models = ["m", "m:a", "m:b"];
    const alone: unknown[] = [];
    {
      const { server, complete, url } = await open();
      await using _server = server;
      await server.services.registry.add("m", artifact, header);
      for (const [folder, name] of [[FIXTURE, "a"], [other, "b"]] as const) {
        const added = await fetch(url, { method: "POST", body: await form(folder, name) });
        assert.equal(added.status, 200, await added.text());
      }
      for (const model of models) alone.push(await complete(model));
      assert.equal(new Set(alone.map((answer) => JSON.stringify(answer))).size, models.length);
      const mixed = [...models, ...models.toReversed()];
      assert.deepEqual(await Promise.all(mixed.map(complete)), [...alone, ...alone.toReversed()]);
    }
    const { server, complete, url } = await open();
    await using _server = server;
    assert.deepEqual([await complete("m:b"), await complete("m:a")], [alone[2], alone[1]]);
    const { services } = server, ensured = { model: "m", name: "a", folder: FIXTURE };
    const added = () => services.registry.adapters.get("m", "a").folder;
    const first = added();
    await ensureAdapter(services, ensured);
    assert.equal(added(), first, "the same weights stay");
    await ensureAdapter(services, { ...ensured, folder: other });
    assert.notEqual(added(), first);
    assert.deepEqual(await complete("m:a"), alone[2]);
    await assert.rejects(ensureAdapter(services, { ...ensured, folder: root }), { code: "invalid_adapter" });
    assert.deepEqual(await complete("m:a"), alone[2], "what cannot be read replaces nothing");
    await (await fetch(`${url}/a`, { method: "DELETE" })).body?.cancel();
    assert.match(String(await complete("m:a")), /"m" has the adapters b/);
  } finally {
    setLogSink(formerSink);
    await Deno.remove(root, { recursive: true });
  }
});
