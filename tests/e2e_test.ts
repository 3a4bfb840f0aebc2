/** The whole path on the real server: start, complete, stream, upload, compress, serve, fail, stop. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import OpenAI from "openai";
import { readEvents } from "./fake_server.ts";
import { OtlpReceiver } from "./otlp_receiver.ts";
import { runReadme } from "./readme.ts";
import { until } from "./until.ts";
import { permissionsOf, ROOT, ServerProcess, sharedFolder } from "./server_process.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const MODEL = "stories-5m";
/** Small enough for a test; the default recipe is measured by the job itself. */
const QUICK = {
  rate: 0.3,
  calibration: { sequences: 8, length: 64 },
  evaluate: { tokens: 128 },
  iterations: 4,
};

async function form(folder: string, fields: Record<string, string>): Promise<FormData> {
  const data = new FormData();
  for (const [k, v] of Object.entries(fields)) data.append(k, v);
  for await (const { name } of Deno.readDir(folder)) {
    if (!/^(config\.json|tokenizer.*\.json|.*\.safetensors(\.index\.json)?)$/.test(name)) continue;
    data.append("files", new Blob([await Deno.readFile(join(folder, name))]), name);
  }
  return data;
}

describe("server", () => {
  let data: string;
  let server: ServerProcess;
  beforeAll(async () => {
    data = await Deno.makeTempDir();
    server = await ServerProcess.start(data);
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await Deno.remove(data, { recursive: true });
  });

  const complete = async (body: object): Promise<Json> =>
    await (await server.post("/v1/completions", {
      model: MODEL,
      prompt: "Once upon a time",
      temperature: 0,
      ...body,
    })).json();
  const compress = async (folder: string, name: string): Promise<Json> => {
    const body = await form(folder, { name, recipe: JSON.stringify(QUICK) });
    const response = await server.get("/v1/models", { method: "POST", body });
    assert.equal(response.status, 202, response.status === 202 ? "" : await response.clone().text());
    const { id } = await response.json();
    const headers = { accept: "text/event-stream" };
    const events = await readEvents(await server.get(`/v1/compressions/${id}/events`, { headers }));
    assert.equal(events.at(-1), "[DONE]");
    return { job: await (await server.get(`/v1/compressions/${id}`)).json(), events };
  };
  const leavesNothing = () => until(() => [...Deno.readDirSync(join(data, "tmp"))].length === 0);

  it("is alive and ready, and prints a curl line that works when pasted", async () => {
    assert.equal((await (await server.get("/healthz")).json()).status, "ok");
    assert.equal((await server.get("/readyz")).status, 200);
    assert.match(
      server.welcome,
      /^Ready \d+ ms after the start: process and modules \d+, .*stories-5m \d+$/m,
    );
    assert.match(server.welcome, /^Model stories-5m, partly at once: header \d+, .*MB\/s\)$/m);
    const line = server.welcome.split("\n").find((l) => l.includes("curl"))!;
    const { stdout } = await new Deno.Command("bash", { args: ["-c", line], stderr: "null" }).output();
    const { choices } = JSON.parse(new TextDecoder().decode(stdout));
    assert.ok(choices[0].text.length > 20);
  });

  it("streams the text that it answers whole, greedy and sampled", async () => {
    for (const options of [{ temperature: 0 }, { temperature: 1, seed: 11, top_p: 0.9 }]) {
      const whole = await complete({ max_tokens: 40, ...options });
      const body = { model: MODEL, prompt: "Once upon a time", max_tokens: 40, stream: true, ...options };
      const events = await readEvents(await server.post("/v1/completions", body)) as Json[];
      assert.equal(events.pop(), "[DONE]");
      assert.equal(events.map((e) => e.choices[0].text).join(""), whole.choices[0].text);
      assert.equal(whole.usage.completion_tokens, 40);
    }
  });

  it("stops before a stop string that crosses tokens", async () => {
    const { choices: [{ text }] } = await complete({ max_tokens: 60 });
    const stop = text.slice(10, 18);
    const { choices: [short] } = await complete({ max_tokens: 60, stop });
    assert.equal(short.text, text.slice(0, text.indexOf(stop)));
    assert.equal(short.finish_reason, "stop");
  });

  it("is measured by bench load, which counts the tokens that the server counts", async () => {
    const tokens = async () => {
      const text = await (await server.get("/metrics")).text();
      const lines = text.split("\n").filter((l) => /^gen_ai_client_token_usage_sum\{.*"output"/.test(l));
      return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
    };
    const before = await tokens();
    const args = [
      "--url",
      server.url,
      "--model",
      MODEL,
      "--rate",
      "20",
      "--requests",
      "12",
      "--warmup",
      "2",
      "--json",
    ];
    args.push("--input-tokens", "40", "--output-tokens", "uniform:4-12", "--ignore-eos", "--slo", "ttft=60s");
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      cwd: ROOT,
      args: ["run", "--no-prompt", ...permissionsOf("oatmill"), "main.ts", "bench", "load", ...args],
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const result: Json = JSON.parse(new TextDecoder().decode(stdout));
    assert.deepEqual([result.requests, result.errors, result.tokens_counted_by], [12, 0, "usage"]);
    assert.ok(result.output_tokens >= 48 && result.output_tokens <= 144 && result.slo_attainment === 1);
    // Random words of a small vocabulary: near what was asked for, as the server counts.
    assert.ok(Math.abs(result.input_tokens / 12 - 40) < 8, `${result.input_tokens / 12}`);
    const outside = 2 * 12 + 2; // at most, of the warm-up and of what asks what words cost
    const counted = await tokens() - before - result.output_tokens;
    assert.ok(counted >= 2 * 4 + 2 && counted <= outside, `${counted}`);
  });

  it("is read by the official client", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
    const models = await client.models.list();
    assert.ok(models.data.some((m) => m.id === MODEL));
    const stream = await client.completions.create({
      model: MODEL,
      prompt: "The dog",
      max_tokens: 8,
      stream: true,
    });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0].text;
    assert.ok(text.length > 0);
    const chat = client.chat.completions.create({
      model: MODEL,
      messages: [{ role: "user", content: "hi" }],
    });
    await assert.rejects(
      chat,
      (e) => e instanceof OpenAI.BadRequestError && e.code === "invalid_chat_template",
    );
    await assert.rejects(
      client.completions.create({ model: "none", prompt: "x" }),
      (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found",
    );
  });

  it("refuses wrong requests in OpenAI's shape", async () => {
    const cases: [path: string, init: RequestInit, status: number, code: string][] = [
      ["/v1/completions", { body: "{" }, 400, "invalid_request"],
      ["/v1/completions", { body: JSON.stringify({ model: MODEL, prompt: 5 }) }, 400, "invalid_request"],
      ["/v1/completions", { body: JSON.stringify({ model: "none", prompt: "x" }) }, 404, "model_not_found"],
      [
        "/v1/completions",
        { body: JSON.stringify({ model: MODEL, prompt: "x", max_tokens: 9999 }) },
        400,
        "context_length_exceeded",
      ],
      ["/v1/nothing", { body: "{}" }, 404, "not_found"],
    ];
    for (const [path, init, status, code] of cases) {
      const response = await server.get(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        ...init,
      });
      const { error } = await response.json();
      assert.deepEqual([response.status, error.code], [status, code], String(init.body));
      assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
    }
  });

  it("frees the place of a client that leaves", async () => {
    const body = { model: MODEL, prompt: "One day", max_tokens: 480, ignore_eos: true, stream: true };
    const response = await server.post("/v1/completions", body);
    const reader = response.body!.getReader();
    await reader.read();
    await reader.cancel();
    const running = async () =>
      Number(
        /^oatmill_engine_requests_running\{.*\} (\d+)$/m.exec(await (await server.get("/metrics")).text())
          ?.[1],
      );
    await until(async () => await running() === 0);
  });

  it("shows its measurements at /metrics", async () => {
    const text = await (await server.get("/metrics")).text();
    for (
      const name of [
        "gen_ai_server_request_duration_bucket",
        "gen_ai_server_time_to_first_token_bucket",
        "gen_ai_server_time_per_output_token_bucket",
        "gen_ai_client_token_usage_bucket",
        "oatmill_output_tokens_per_second_bucket",
        "oatmill_engine_kv_blocks_total",
        "oatmill_model_artifact_size",
      ]
    ) assert.match(text, new RegExp(`^${name}\\{.*gen_ai_request_model="${MODEL}"`, "m"));
  });

  it("compresses an upload, serves it, hands it out and deletes it", async () => {
    const { job, events } = await compress(join(ROOT, "models/default"), "again");
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    assert.ok(job.result.perplexity.compressed > 1);
    const phases = new Set((events as Json[]).map((e) => e.data?.progress?.phase));
    assert.ok(phases.has("compress"));
    const { choices } = await complete({ model: "again", max_tokens: 8 });
    assert.ok(choices[0].text.length > 0);
    const header = await (await server.get("/v1/models/again/files/oatmill.json")).json();
    assert.equal(header.name, "again");
    const weights = await server.get("/v1/models/again/files/model.safetensors");
    assert.equal((await weights.bytes()).length, Number(weights.headers.get("content-length")));
    assert.equal((await server.get("/v1/models/again", { method: "DELETE" })).status, 200);
    assert.equal((await server.post("/v1/completions", { model: "again", prompt: "x" })).status, 404);
    await leavesNothing();
  });

  it("unpacks an uploaded archive and serves dense f32 weights, token for token as the reference", async () => {
    const archive = join(data, "tmp", "default.tar.gz");
    await new Deno.Command("tar", { args: ["czf", archive, "-C", join(ROOT, "models"), "default"] }).output();
    const body = new FormData();
    body.append("recipe", JSON.stringify({ ...QUICK, method: "none", values: "f32" }));
    body.append("files", new Blob([await Deno.readFile(archive)]), "default.tar.gz");
    await Deno.remove(archive);
    const { id, model } = await (await server.get("/v1/models", { method: "POST", body })).json();
    assert.equal(model, "default");
    await (await server.get(`/v1/compressions/${id}/events?stream=true`)).text();
    const job = await (await server.get(`/v1/compressions/${id}`)).json();
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    const expected = JSON.parse(await Deno.readTextFile(join(ROOT, "models/default/expected.json")));
    for (const { prompt, greedy_ids } of expected.cases) {
      const body = {
        model: "default",
        prompt,
        max_tokens: greedy_ids.length,
        return_token_ids: true,
        ignore_eos: true,
      };
      assert.deepEqual((await complete(body)).choices[0].token_ids, greedy_ids, prompt);
    }
  });

  const tiny = sharedFolder("oracles/llama2");
  (tiny ? it : it.skip)("serves an upload without a tokenizer by token ids (../shared/oracles)", async () => {
    const { job } = await compress(tiny!, "tiny");
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    const { choices } = await complete({
      model: "tiny",
      prompt: [1, 2, 3],
      max_tokens: 4,
      return_token_ids: true,
      ignore_eos: true,
    });
    assert.equal(choices[0].token_ids.length, 4);
  });

  const attacks = sharedFolder("oracles/attacks");
  (attacks ? it : it.skip)(
    "fails bad uploads with the file and the reason, and serves on (../shared/oracles)",
    async () => {
      const cases: [folder: string, code: string, message: RegExp][] = [
        ["model/nan_weight", "non_finite_weights", /model\.safetensors.*NaN|NaN.*model\.safetensors|nan/i],
        ["model/missing_tensor", "invalid_checkpoint", /tensor|weight/i],
        ["model/wrong_shape", "invalid_checkpoint", /shape/i],
      ];
      const models = [...Deno.readDirSync(join(data, "models"))].length;
      for (const [folder, code, message] of cases) {
        const { job } = await compress(join(attacks!, folder), "bad");
        assert.deepEqual([job.status, job.error?.code], ["failed", code], `${folder}: ${job.error?.message}`);
        assert.match(job.error.message, message);
      }
      const unknown = await form(join(attacks!, "base_ok"), { name: "bad", recipe: JSON.stringify(QUICK) });
      const config = JSON.parse(await Deno.readTextFile(join(attacks!, "base_ok/config.json")));
      const odd = { ...config, architectures: ["OddForCausalLM"], model_type: "odd" };
      unknown.set("files", new Blob([JSON.stringify(odd)]), "config.json");
      unknown.append(
        "files",
        new Blob([await Deno.readFile(join(attacks!, "base_ok/model.safetensors"))]),
        "model.safetensors",
      );
      const { id } = await (await server.get("/v1/models", { method: "POST", body: unknown })).json();
      await (await server.get(`/v1/compressions/${id}/events?stream=true`)).text();
      const job = await (await server.get(`/v1/compressions/${id}`)).json();
      assert.deepEqual([job.status, job.error?.code], ["failed", "unsupported_architecture"]);
      assert.match(job.error.message, /odd/i);
      await leavesNothing();
      assert.equal([...Deno.readDirSync(join(data, "models"))].length, models);
      assert.ok((await complete({ max_tokens: 4 })).choices[0].text.length > 0);
    },
  );

  it("runs every command of the README", async () => {
    await runReadme(server.url);
  });

  it("stops when asked, starts again with what it has, and sends traces and metrics to an OTLP receiver", async () => {
    assert.equal(await server.stop(), 0);
    await using receiver = new OtlpReceiver();
    server = await ServerProcess.start(data, { env: { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.endpoint } });
    assert.doesNotMatch(server.log, /compress/);
    const traceparent = `00-${"c".repeat(32)}-${"d".repeat(16)}-01`;
    const headers = { "content-type": "application/json", traceparent };
    const response = await server.post("/v1/completions", { model: MODEL, prompt: "A", max_tokens: 4 }, {
      headers,
    });
    assert.equal((await response.json()).choices[0].finish_reason, "length");
    assert.equal(await server.stop(), 0);
    const names = receiver.spans().filter((s) => s.traceId === "c".repeat(32)).map((s) => s.name).sort();
    assert.deepEqual(names, ["decode", "prefill", "queue", `text_completion ${MODEL}`]);
    assert.ok(receiver.metrics().some((m) => m.name === "gen_ai.server.time_to_first_token"));
    assert.match(server.log, new RegExp(`"message":"request".*"trace_id":"${"c".repeat(32)}"`));
  });
});
