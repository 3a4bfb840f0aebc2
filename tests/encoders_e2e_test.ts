/** Encoders on the real server: uploaded, compressed, asked for labels and vectors. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "@std/testing/bdd";
import OpenAI from "openai";
import { sharedFolder } from "./server_process.ts";
import { uploadModel, useServer } from "./server_suite.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const DENSE = { method: "none", values: "f32" };
/** Needs no calibration: the model has no tokenizer that would read a text. */
const INT8 = { method: "none", values: "int8", rounding: "nearest" };
const OATS = { method: "oats", rate: 0.3 };

const oracles = sharedFolder("oracles");
const title = oracles ? "encoders" : "encoders (ignored: ../shared/oracles is absent)";

describe(title, () => {
  if (!oracles) return it.skip("", () => {});
  const server = useServer();
  const read = (path: string) => Deno.readFile(join(oracles, path));

  /** @param images files of ../shared/oracles/preprocess to calibrate on */
  async function upload(family: string, name: string, recipe: object, images: string[] = []): Promise<Json> {
    const files: Record<string, Uint8Array<ArrayBuffer>> = {};
    for (const { name } of Deno.readDirSync(join(oracles!, family))) {
      if (name !== "expected.json") files[name] = await read(`${family}/${name}`);
    }
    for (const name of images) files[name] = await read(`preprocess/${name}`);
    return await uploadModel(server(), files, { name, recipe });
  }

  it("labels an image as the reference does, with the permissions that a server has", async () => {
    const job = await upload("vit", "vit", DENSE);
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    const file = "smooth_48x48.jpg", form = new FormData();
    form.append("model", "vit");
    form.append("image", new Blob([await read(`preprocess/${file}`)]), file);
    const { data: [found] }: Json = await (await server().get("/v1/classify", { method: "POST", body: form }))
      .json();
    const expected = JSON.parse(await Deno.readTextFile(join(oracles!, "preprocess/expected.json")));
    const logits: number[] = expected.vit.images[file].logits.flat();
    assert.equal(found.label, `class_${logits.indexOf(Math.max(...logits))}`);
    const metrics = await (await server().get("/metrics")).text();
    assert.match(metrics, /gen_ai_server_request_duration_count\{.*gen_ai_operation_name="classify"/);
  });

  it("gives vectors of token ids to the official client, of a quantised model too", async () => {
    assert.equal((await upload("bert", "bert", DENSE)).status, "succeeded");
    const job = await upload("bert", "bert-int8", INT8);
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    const client = new OpenAI({ baseURL: `${server().url}/v1`, apiKey: "none", maxRetries: 0 });
    const vectors = await Promise.all(["bert", "bert-int8"].map(async (model) => {
      const { data, usage } = await client.embeddings.create({ model, input: [5, 17, 40, 9] });
      assert.equal(usage.prompt_tokens, 4);
      return data[0].embedding;
    }));
    const dot = (a: number[], b: number[]) => a.reduce((sum, v, i) => sum + v * b[i], 0);
    const [dense, compressed] = vectors;
    const cosine = dot(dense, compressed) / Math.sqrt(dot(dense, dense) * dot(compressed, compressed));
    assert.ok(cosine > 0.98 && cosine < 0.9999999, `${cosine}`);
  });

  it("compresses on uploaded images, and says so where there are none", async () => {
    const none = await upload("vit", "vit-oats", OATS);
    assert.deepEqual([none.status, none.error?.code], ["failed", "invalid_recipe"]);
    assert.match(none.error.message, /images/);
    const recipe = { ...OATS, iterations: 2, calibration: { text: "images" } };
    const names = ["ramp_53x37.png", "smooth_64x96.png", "gray_40x40.png", "smooth_48x48.jpg"];
    const job = await upload("vit", "vit-oats", recipe, names);
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    const image = (await read(`preprocess/${names[0]}`)).toBase64();
    const { data: [found] }: Json =
      await (await server().post("/v1/classify", { model: "vit-oats", image, top_k: 10 })).json();
    assert.equal(found.labels.length, 10);
    assert.ok(Math.abs(found.labels.reduce((sum: number, l: Json) => sum + l.score, 0) - 1) < 1e-6);
  });
});
