/** `bench load` as a process: its options reach the server, its output has the promised fields, Ctrl-C gives what there is. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ScriptedServer, textEvent, wholeAnswer } from "../bench/load/testing/scripted_server.ts";
import { permissionsOf, ROOT } from "../tests/server_process.ts";
import { until } from "../tests/until.ts";

function start(server: ScriptedServer, args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: [
      "run",
      "--no-prompt",
      ...permissionsOf("oatmill"),
      "main.ts",
      "bench",
      "load",
      "--url",
      server.url,
      ...args,
    ],
    env: { NO_COLOR: "1", OPENAI_API_KEY: "sk-test" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}
async function load(server: ScriptedServer, ...args: string[]) {
  const { code, stdout, stderr } = await start(server, args).output();
  const text = new TextDecoder();
  assert.equal(code, 0, text.decode(stderr));
  return text.decode(stdout);
}

Deno.test("bench load --json has the promised fields, counts exactly, and sends what the options say", async () => {
  await using server = new ScriptedServer((body) =>
    wholeAnswer(body.max_tokens, body.prompt.split(" ").length)
  );
  const folder = await Deno.makeTempDir();
  try {
    const report = join(folder, "report.html"), saved = join(folder, "requests.jsonl");
    const result = JSON.parse(
      await load(
        server,
        ...[
          "--rate",
          "100",
          "--arrivals",
          "burst",
          "--requests",
          "20",
          "--warmup",
          "3",
          "--output-tokens",
          "6",
        ],
        ...[
          "--input-tokens",
          "uniform:10-20",
          "--shared-prefix",
          "8x2",
          "--slo",
          "ttft=30s,e2e=60s",
          "--seed",
          "3",
        ],
        ...[
          "--ignore-eos",
          "--body",
          '{"top_k":1,"temperature":null}',
          "--self-check",
          "--report",
          report,
          "--save-requests",
          saved,
          "--json",
        ],
      ),
    );
    assert.deepEqual([result.requests, result.errors, result.output_tokens, result.warmup_requests], [
      20,
      0,
      120,
      3,
    ]);
    for (const name of ["ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"]) {
      const { p50, p90, p99, max } = result[name];
      assert.ok(p50 <= p90 && p90 <= p99 && p99 <= max, name);
    }
    assert.ok(result.output_tokens_per_second > 0 && result.goodput > 0 && result.slo_attainment === 1);
    assert.ok(result.self_check.requests > 0 && result.client.cpu_share > 0 && result.corrected);
    assert.deepEqual([result.model, result.endpoint, result.load.arrivals.kind], [
      "stub",
      "completions",
      "burst",
    ]);
    const bodies = server.bodies.slice(2); // two ask what words cost
    assert.equal(bodies.length, 23);
    for (const { prompt, max_tokens, ignore_eos, top_k, temperature, stream_options } of bodies) {
      const words = prompt.split(" ").length;
      assert.ok(words >= 18 && words <= 28, `${words}`);
      assert.deepEqual([max_tokens, ignore_eos, top_k, temperature], [6, true, 1, undefined]);
      assert.deepEqual(stream_options, { include_usage: true });
    }
    assert.ok(server.headers.every((h) => h.get("authorization") === "Bearer sk-test"));
    const rows = (await Deno.readTextFile(saved)).trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual([rows.length, rows[0].phase, rows[0].output_tokens, rows[0].error], [
      20,
      "load",
      6,
      null,
    ]);
    assert.match(await Deno.readTextFile(report), /^\s*<!doctype html>[^]*Time to first token/i);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bench load sends a dataset's messages to chat, sweeps, and compares", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(2));
  const folder = await Deno.makeTempDir();
  try {
    const dataset = join(folder, "chats.jsonl");
    const row = { messages: [{ role: "user", content: "Hi" }, { role: "assistant", content: "12345678" }] };
    await Deno.writeTextFile(dataset, `${JSON.stringify(row)}\n`);
    const common = ["--dataset", dataset, "--requests", "6", "--warmup", "0", "--json"];
    const swept = JSON.parse(await load(server, ...common, "--sweep", "concurrency=1,2"));
    assert.deepEqual(
      swept.sweep.points.map((p: { value: number; requests: number }) => [p.value, p.requests]),
      [
        [1, 6],
        [2, 6],
      ],
    );
    assert.equal(swept.endpoint, "chat");
    assert.deepEqual(server.bodies.at(-1).messages, [{ role: "user", content: "Hi" }]);
    assert.equal(server.bodies.at(-1).max_tokens, 2, "as long as the dataset's answer, 4 characters a token");
    const text = await load(
      server,
      ...common.slice(0, -1),
      "--compare",
      "one",
      `${server.url}#two`,
      "--blocks",
      "2",
    );
    assert.match(text, /A is one, B is http:.*#two: in turn, 2 rounds/);
    assert.match(text, /^output tokens\/s +\d/m);
    const models = server.bodies.slice(-24).map((b) => b.model);
    assert.deepEqual(models, ["one", "two", "one", "two"].flatMap((m) => Array(6).fill(m)));
    const both = ["--compare", "one", "two", "--blocks", "1", "--sweep", "concurrency=1,2"];
    const { sweeps, compare } = JSON.parse(await load(server, ...common, ...both));
    assert.deepEqual(server.bodies.slice(-24).map((b) => b.model), models);
    assert.deepEqual([sweeps.a.name, sweeps.b.points.length, sweeps.ratios.length], ["one", 2, 2]);
    assert.equal(compare.a.blocks.length, 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bench load compares under the same prompts, but for one model on one server, which would know them", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(1));
  const sides = async (a: string, b: string) => {
    await load(server, "--compare", a, b, "--blocks", "1", "--requests", "3", "--warmup", "0", "--json");
    const prompts = server.bodies.slice(-6).map((body) => body.prompt);
    return [prompts.slice(0, 3), prompts.slice(3)];
  };
  const [a, b] = await sides("one", "two");
  assert.deepEqual(a, b);
  assert.equal(new Set((await sides("one", "one")).flat()).size, 6);
});

Deno.test("bench load prints what it has when it is interrupted", async () => {
  const hang = Promise.withResolvers<void>();
  await using server = new ScriptedServer((_, i) =>
    i < 6 ? wholeAnswer(2) : { pieces: [textEvent("x"), hang.promise] }
  );
  const child = start(server, ["--concurrency", "2", "--duration", "600s", "--warmup", "0", "--json"]);
  await until(() => server.bodies.length >= 8);
  child.kill("SIGINT");
  const { code, stdout, stderr } = await child.output();
  hang.resolve();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const result = JSON.parse(new TextDecoder().decode(stdout));
  assert.deepEqual([result.requests, result.unfinished, result.errors, result.interrupted], [4, 2, 0, true]);
});
