import assert from "node:assert/strict";
import { join } from "node:path";
import type { Command } from "commander";
import { COMMIT, FakeHub } from "../hub/testing/fake_hub.ts";
import { insightSchema } from "../models/formats/insight_file.ts";
import { writeArtifact } from "../models/testing/artifact.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { permissionsOf, ROOT } from "../tests/server_process.ts";
import { writeVitFolder } from "../tests/vit_cifar10/vit_folder.ts";
import { adapterOf } from "./commands/arguments.ts";
import { createProgram } from "./program.ts";

/** An adapter of the bundled model. */
const FIXTURE = "tests/fixtures/peft_adapter";

/** One row and two rows go through different kernels, which add in different orders. */
const F32_NOISE = 1e-4;

const oatmill = (...args: string[]) => oatmillWith("", args);
async function oatmillWith(input: string, args: string[], env: Record<string, string> = {}) {
  const child = new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: ["run", "--no-prompt", ...permissionsOf("oatmill"), "main.ts", ...args],
    env: { NO_COLOR: "1", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const written = new Response(input).body!.pipeTo(child.stdin).catch(() => {}); // it may end without reading
  const { code, stdout, stderr } = await child.output();
  await written;
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}
const commands = (program: Command): Command[] =>
  program.commands.flatMap((c) => c.commands.length ? commands(c) : [c]);

Deno.test("every command has a description and describes its options", () => {
  const names = commands(createProgram()).map((c) => c.name()).sort();
  assert.deepEqual(names, [
    "add",
    "chat",
    "compress",
    "compress",
    "engine",
    "eval",
    "export",
    "families",
    "inspect",
    "kernels",
    "list",
    "load",
    "logits",
    "merge",
    "pull",
    "recover",
    "recover",
    "report",
    "revoke",
    "serve",
    "start",
  ]);
  for (const command of commands(createProgram())) {
    assert.ok(command.description().length > 0, command.name());
    for (const { long, description } of command.options) {
      assert.ok(long && description.length > 0, `${command.name()} ${long}`);
    }
  }
});

Deno.test("help and version exit with 0, wrong usage with 2, failures with 1", async () => {
  const data = await Deno.makeTempDir();
  const cases: [args: string[], code: number, output: RegExp][] = [
    [["--help"], 0, /Usage: oatmill/],
    [["eval", "--help"], 0, /--max-tokens/],
    [["--version"], 0, /^\d+\.\d+\.\d+/],
    [[], 2, /Usage/],
    [["nothing"], 2, /unknown command/],
    [["keys", "add"], 2, /missing required argument 'name'/],
    [["keys", "add", "me", "--scopes", "root"], 2, /read, infer, admin/],
    [["serve", "--host", "0.0.0.0", "--data", data], 1, /without API keys.*--allow-anonymous/],
    [["serve", "--requests-per-minute", "0"], 2, /of at least 1/],
    [["serve", "--tokens-per-minute", "many"], 2, /of at least 1/],
    [["serve", "--request-timeout", "x"], 2, /from 0 to/],
    [["serve", "--drain-timeout", "-1"], 2, /from 0 to/],
    [["serve", "--drain-delay", "soon"], 2, /from 0 to/],
    [["serve", "--keep-versions", "0"], 2, /of at least 1/],
    [["serve", "--keep-ended", "0"], 2, /of at least 1/],
    [["serve", "--keep-ended-days", "x"], 2, /from 0 to/],
    [["serve", "--storage-quota", "1e9x"], 2, /--storage-quota/],
    [["serve", "--cors-origin", "*"], 2, /Use scheme and host/],
    [["serve", "--cors-origin", "https://a.example/path"], 2, /Use scheme and host/],
    [["compress", "models/default"], 2, /--out/],
    [["compress", "models/default", "--out", "x", "--rate", "2"], 2, /from 0 to 1/],
    [["compress", "models/default", "--out", "x", "--work-memory", "-1"], 2, /of at least 0/],
    [["compress", "models/default", "--out", "x", "--mean-bits", "9"], 2, /from 2 to 8/],
    [["compress", "nowhere.onnx", "--out", "x", "--smallest-layer", "-1"], 2, /of at least 0/],
    [["compress", "nowhere.onnx", "--out", "x", "--smallest-layer", "0"], 1, /nowhere\.onnx/],
    [
      ["compress", "models/default", "--out", "x", "--mean-bits", "5", "--values", "int4"],
      1,
      /mean_bits.*int4 have 4 bits at most/,
    ],
    [["compress", "models/default", "--out", "x", "--svd-weighting", "all"], 2, /none, scales, moments/],
    [
      ["compress", "models/default", "--out", "x", "--method", "svd", "--pattern", "2:4"],
      1,
      /no sparse part/,
    ],
    [["logits", "models/default", "--ids", "1,x"], 2, /token ids/],
    [["serve", "--port", "65536"], 2, /65535/],
    [["export", "models/default", "--out", "x"], 2, /--to/],
    [["export", "models/default", "--to", "pickle", "--out", "x"], 2, /safetensors/],
    [["export", "models/default", "--to", "safetensors", "--out", "x", "--parts"], 1, /no artifact/],
    [["chat", "models/default", "--temperature", "hot"], 2, /from 0 to 2/],
    [["report", "models/default"], 2, /--text/],
    [["report", "models/default", "--text", "README.md", "--tasks", "piqa"], 2, /--tasks and --data/],
    [["report", "models/default", "--text", "README.md", "--rows", "none"], 1, /rows "none": there are/],
    [["bench", "engine"], 2, /either a model or --synthetic/],
    [["bench", "engine", "--synthetic", "tiny", "--peer"], 2, /--peer.* cannot be used with .*--synthetic/],
    [["bench", "engine", "models/default", "--rank-ratio", "0.1"], 2, /--rank-ratio is for --synthetic/],
    [["bench", "kernels", "--kernel", "w99q8"], 1, /"w99q8": there are .*w8q4/],
    [["bench", "kernels", "--kernel", "f32", "--shape", "99999x99999"], 1, /GiB: a memory holds 4/],
    [["bench", "engine", "x", "--peers", "llama.cpp:q8_0,nobody"], 2, /llama\.cpp:q4_1/],
    [["bench", "engine", "--synthetic", "huge"], 2, /llama-2-7b/],
    [["bench", "compress", "--rows", "nothing"], 1, /Cannot find rows/],
    [["bench", "compress", "--synthetic", "vit-b"], 1, /only decoders/],
    [["bench", "engine", "--synthetic", "tiny", "--rate", "0.5,2"], 2, /from 0 to 0.95/],
    [["bench", "engine", "--synthetic", "tiny", "--against", "nobody"], 2, /dense-int8/],
    [["bench", "engine", "--synthetic", "tiny", "--context", "9999"], 1, /256/],
    [["bench", "engine", "--synthetic", "tiny", "--against", "onnxruntime"], 1, /only encoders/],
    [["bench", "recover", "models/default", "--synthetic", "tiny"], 2, /either a model or --synthetic/],
    [["bench", "recover", "--kind", "magic"], 2, /distill, blockwise/],
    [["bench", "recover", "--rate", "1"], 2, /from 0 to 0\.95/],
    [["bench", "recover", "--length", "99999"], 1, /its context has \d+ tokens/],
    [["bench", "load", "--url", "here"], 2, /an address, as in http/],
    [["bench", "load", "--rate", "0"], 2, /from 0.001 to/],
    [["bench", "load", "--rate", "1", "--concurrency", "1"], 2, /cannot be used with/],
    [["bench", "load", "--sweep", "rate=4,2"], 2, /rising numbers or auto/],
    [["bench", "load", "--sweep", "rate=auto", "--rate", "1"], 2, /cannot be used with/],
    [["bench", "load", "--slo", "ttft=fast"], 2, /ttft=200ms/],
    [["bench", "load", "--input-tokens", "zipf:3"], 2, /lognormal:128,0.5/],
    [["bench", "load", "--shared-prefix", "512"], 2, /512x4/],
    [["bench", "load", "--duration", "soon"], 2, /30s/],
    [["bench", "load", "--warmup", "-1"], 2, /number of requests/],
    [["bench", "load", "--body", "[1]"], 2, /JSON object/],
    [["bench", "load", "--compare", "one"], 2, /--compare takes two names/],
    [["bench", "load", "--url", "http://127.0.0.1:1"], 1, /Cannot reach http:\/\/127\.0\.0\.1:1\/v1\/models/],
    [
      ["bench", "load", "--url", "http://127.0.0.1:1", "--model", "x"],
      1,
      /first request failed \(connection\)/,
    ],
    [
      ["bench", "load", "--url", "https://api.example.org"],
      1,
      /may not connect to api\.example\.org[^]*deno run --allow-net=api\.example\.org /,
    ],
    [["bench", "load", "--dataset", "nowhere.jsonl"], 1, /nowhere\.jsonl/],
    [["bench", "load", "--dataset", "deno.json"], 1, /"deno\.json" must hold an array/],
    [["bench", "load", "--report", "nowhere/x.html"], 1, /nowhere/],
    [["inspect", "nowhere"], 1, /nowhere/],
    [["inspect"], 2, /either a model or --synthetic/],
    [["inspect", "models/default", "--sequences", "4"], 2, /--sequences is for --insight/],
    [["inspect", "--synthetic", "tiny", "--insight"], 2, /cannot be used with .*--insight/],
    [["inspect", "models/default", "--insight", "--calibration", "nowhere.txt"], 1, /nowhere\.txt/],
    [["eval", "models/default", "--text", "nowhere.txt"], 1, /nowhere\.txt/],
    [["eval", "models/default"], 2, /--text, --tasks or --images/],
    [["eval", "models/default", "--tasks", "../piqa", "--data", "cli"], 2, /names with commas/],
    [["eval", "models/default", "--tasks", "piqa"], 2, /--tasks and --data/],
    [["eval", "models/default", "--tasks", "piqa", "--data", "cli"], 1, /"cli" has no "piqa\.jsonl" nor/],
    [
      ["eval", "models/default", "--tasks", "piqa", "--data", "cli", "--reference", "x"],
      2,
      /--reference .*--text/,
    ],
    [
      ["eval", "models/default", "--text", "README.md", "--window", "8", "--stride", "9"],
      2,
      /--stride .*--window/,
    ],
    [["eval", "models/default", "--text", "README.md", "--max-length", "9"], 2, /--word-perplexity/],
    [["eval", "models/default", "--images", "cli"], 1, /subfolder/],
    [["eval", "models/default", "--images", "cli", "--text", "x"], 2, /--images cannot be used with --text/],
    [["compress", "models/default", "--out", "x", "--recipe", "README.md"], 1, /recipe/i],
    [["serve", "--data", "deno.json"], 1, /deno\.json/],
    [
      ["serve", "--data", data, "--host", "127.0.0.1.x", "--no-bundled"],
      1,
      /Cannot listen on 127\.0\.0\.1\.x/,
    ],
    [["logits", "models/default", "--ids", "99999"], 1, /99999/],
    [["logits", "models/default"], 1, /--ids/],
  ];
  for (const [args, code, output] of cases) {
    const result = await oatmill(...args);
    assert.equal(result.code, code, `${args.join(" ")}: ${result.stderr}`);
    assert.match(result.stdout + result.stderr, output, args.join(" "));
    assert.doesNotMatch(result.stderr, /^\s+at /m, `no stack trace: ${args.join(" ")}`);
  }
  await Deno.remove(data, { recursive: true });
});

Deno.test("chat answers lines that come through a pipe, to the last one", async () => {
  const { code, stderr } = await oatmillWith(
    "One day\nThe dog\n",
    ["chat", "models/default", "--max-tokens", "2", "--temperature", "0"],
  );
  assert.equal(code, 0, stderr);
  assert.equal(stderr.match(/\b2 tokens,/g)?.length, 2);
});

Deno.test("--json prints one JSON document with the promised fields, progress elsewhere", async () => {
  const text = await Deno.makeTempFile({ suffix: ".txt" });
  try {
    await Deno.writeTextFile(
      text,
      "Once upon a time there was a little dog. The dog liked to play in the park.",
    );
    const evaluated = await oatmill("eval", "models/default", "--text", text, "--max-tokens", "12", "--json");
    const { tokens, token_perplexity, word_perplexity, tasks } = JSON.parse(evaluated.stdout);
    assert.equal(tokens, 12);
    assert.ok(token_perplexity > 1 && word_perplexity > token_perplexity);
    assert.deepEqual(tasks, {});
    const { ids, logits } = JSON.parse(
      (await oatmill("logits", "models/default", "--ids", "1,2", "--json")).stdout,
    );
    assert.deepEqual(ids, [1, 2]);
    assert.equal(logits.length, 2048);
    const all = JSON.parse(
      (await oatmill("logits", "models/default", "--ids", "1,2", "--all", "--json")).stdout,
    );
    assert.deepEqual(all.logits.map((row: number[]) => row.length), [2048, 2048]);
    logits.forEach((v: number, i: number) => assert.ok(Math.abs(all.logits[1][i] - v) < F32_NOISE));
    const inspected = JSON.parse((await oatmill("inspect", "models/default", "--json")).stdout);
    assert.equal(inspected.parameters, 4_947_968);
  } finally {
    await Deno.remove(text);
  }
});

Deno.test("eval --json measures tasks, the harness's word perplexity and the divergence from a reference", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const text = `${folder}/wiki.txt`, page = "The dog liked to play . He ran to the park . ".repeat(8);
    await Deno.writeTextFile(text, ` = One = \n ${page}\n = Two = \n ${page}\n`);
    const question = { context: "Once upon a", choices: ["time", "xylophone"], answer: 0 };
    await Deno.writeTextFile(`${folder}/story.jsonl`, `${JSON.stringify(question)}\n`.repeat(3));
    const { code, stdout, stderr } = await oatmill(
      ...["eval", "models/default", "--text", text, "--window", "64", "--stride", "32", "--bos", "--json"],
      ...["--word-perplexity", "lm-eval", "--max-length", "48", "--reference", "models/default"],
      ...["--tasks", "story", "--data", folder, "--limit", "2"],
    );
    assert.equal(code, 0, stderr);
    const found = JSON.parse(stdout);
    assert.deepEqual([found.window, found.stride, found.bos, found.scored], [64, 32, true, found.tokens]);
    const { lm_eval, divergence, tasks } = found;
    assert.deepEqual([lm_eval.pages, lm_eval.max_length, lm_eval.prefix_token], [2, 48, 1]);
    assert.ok(Math.abs(lm_eval.word_perplexity - Math.exp(lm_eval.nll / lm_eval.words)) < 1e-9);
    // The same model: other batches add f32 in another order.
    assert.ok(divergence.kl_max < 1e-6 && divergence.probability_change_rms < 1e-4);
    assert.deepEqual([divergence.top1_agreement, divergence.tokens], [1, found.scored]);
    assert.ok(Math.abs(divergence.token_perplexity / found.token_perplexity - 1) < 1e-4);
    const { accuracy, accuracy_norm, count } = tasks.story;
    assert.deepEqual([accuracy, accuracy_norm, count], [1, 1, 2]);
    const images = `${folder}/images/cat`;
    await Deno.mkdir(images, { recursive: true });
    await Deno.writeTextFile(`${images}/0.png`, "");
    const refused = await oatmill("eval", "models/default", "--images", `${folder}/images`);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /reads text, not images/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("options of adapters say how they are written", async () => {
  for (
    const [args, message] of [
      [["serve", "--adapter", "llama=x"], /model:name=folder/],
      [["merge", "models/default", "--out", "x"], /--adapter/],
      [["merge", "models/default", "--adapter", FIXTURE, "--out", "x"], /no artifact/],
      [["export", "x", "--to", "peft", "--out", "y"], /--base/],
      [["eval", "x", "--images", "y", "--adapter", "z"], /--images cannot be used with --adapter/],
    ] as const
  ) {
    const program = createProgram().configureOutput({ writeErr: () => {}, outputError: () => {} });
    await assert.rejects(program.parseAsync([...args], { from: "user" }), message);
  }
  assert.deepEqual(adapterOf("b:y=/z", adapterOf("a:x=d=e")), [
    { model: "a", name: "x", folder: "d=e" },
    { model: "b", name: "y", folder: "/z" },
  ]);
});

Deno.test("merge writes an artifact that eval measures as it does the artifact through the adapter", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const artifact = join(dir, "artifact"), merged = join(dir, "merged");
    await writeArtifact(artifact);
    const run = async (...args: string[]) => {
      const { code, stdout, stderr } = await oatmill(...args, "--json");
      assert.equal(code, 0, stderr);
      return JSON.parse(stdout);
    };
    const result = await run("merge", artifact, "--adapter", FIXTURE, "--out", merged);
    assert.deepEqual([result.layers, result.rank, result.base_model], [6, 3, "models/default"]);
    assert.ok(result.bytes > result.bytes_before);
    const measure = ["--text", "README.md", "--max-tokens", "400", "--window", "128", "--no-autotune"];
    const perplexity = async (...args: string[]) => (await run("eval", ...args, ...measure)).token_perplexity;
    const [through, inside] = [await perplexity(artifact, "--adapter", FIXTURE), await perplexity(merged)];
    // Both round the factors to 8 bits, to other scales: 0.005 % apart; without the adapter it is 22 % more.
    assert.ok(Math.abs(Math.log(inside / through)) < 0.02, `${through}, ${inside}`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("inspect --insight measures an artifact beside its dense model, stores it, and reports", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const artifact = join(dir, "a"), text = join(dir, "t.txt"), report = join(dir, "r.html");
    await writeArtifact(artifact);
    await Deno.writeTextFile(text, "Once upon a time there was a little dog. ".repeat(20));
    const before = JSON.parse((await oatmill("inspect", artifact, "--json")).stdout);
    assert.equal(before.insight, undefined, "artifacts had none before");
    const { code, stderr, stdout } = await oatmill(
      ...["inspect", artifact, "--insight", "--source", "models/default", "--calibration", text],
      ...["--sequences", "2", "--length", "32", "--threads", "2", "--report", report],
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, /block\.5\.down/);
    assert.match(await Deno.readTextFile(report), /<h2>Singular values<\/h2>/);
    const { insight } = JSON.parse((await oatmill("inspect", artifact, "--json")).stdout);
    assert.deepEqual(insightSchema.parse(insight).calibration, { text: "t.txt", sequences: 2, length: 32 });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("bench engine --synthetic compares recipes of one shape", async () => {
  const { code, stdout, stderr } = await oatmill(
    ...["bench", "engine", "--synthetic", "tiny", "--rate", "0.5,0", "--values", "int4", "--json"],
    ...["--against", "dense-int8,wanda", "--context", "64", "--threads", "1", "--repeats", "1"],
    ...["--prompt-tokens", "40", "--decode-tokens", "4", "--streams", "2"],
  );
  assert.equal(code, 0, stderr);
  const { shape, threads, context, models } = JSON.parse(stdout);
  assert.deepEqual([shape, threads, context], ["tiny", 1, 64]);
  const names = models.map((m: { name: string }) => m.name);
  assert.deepEqual(names, ["oats 0.5 int4", "dense int4", "dense int8", "wanda 0.5 int4"]);
  const [{ median, spread, ratios, packed_bytes }] = models;
  for (const figure of ["prefill", "decode", "streams"].map((f) => `${f}_tokens_per_second`)) {
    assert.ok(median[figure] > 0);
    assert.equal(spread[figure].max, median[figure], "one round has no spread");
    assert.ok(ratios["dense int8"].median[figure] > 0);
  }
  assert.ok(packed_bytes < models[2].packed_bytes);
});

Deno.test("bench engine --synthetic times an encoder's forward pass, also against ONNX Runtime", async () => {
  const { code, stdout, stderr } = await oatmill(
    ...["bench", "engine", "--synthetic", "tiny-encoder", "--repeats", "1", "--threads", "1", "--json"],
    ...["--against", "dense-int8,onnxruntime"],
  );
  assert.equal(code, 0, stderr);
  const { prompt_tokens, models } = JSON.parse(stdout);
  assert.equal(prompt_tokens, 64);
  const names = models.map((m: { name: string }) => m.name);
  assert.deepEqual(names, ["oats 0.5 int8", "dense int8", "onnxruntime f32"]);
  for (const { median, forward_ms, packed_bytes } of models) {
    assert.equal(forward_ms, 64 * 1000 / median.forward_tokens_per_second);
    assert.ok(packed_bytes > 0);
  }
  const { ratios } = models[0];
  assert.ok(ratios["onnxruntime f32"].median.forward_tokens_per_second > 0);
});

Deno.test("bench engine --adapters compares none, one and several adapters", async () => {
  const { code, stdout, stderr } = await oatmill(
    ...["bench", "engine", "models/default", "--adapters", "2", "--rank", "3", "--values", "int8", "--json"],
    ..."--threads 1 --repeats 1 --prompt-tokens 20 --decode-tokens 4 --streams 2".split(" "),
  );
  assert.equal(code, 0, stderr);
  const { rank, layers, adapter_bytes, rows } = JSON.parse(stdout);
  assert.deepEqual([rank, layers], [3, 42]);
  assert.ok(adapter_bytes > 0);
  assert.deepEqual(rows.map((r: { adapters: number }) => r.adapters), [0, 1, 2]);
  assert.deepEqual(rows[0].ratio, { prefill: 1, decode: 1, streams: 1 });
  for (const { ratio } of rows) for (const figure of Object.values(ratio)) assert.ok(figure as number > 0);
  const both = await oatmill("bench", "engine", "models/default", "--adapters", "2", "--peer");
  assert.equal(both.code, 2);
  assert.match(both.stderr, /cannot be used with/);
});

oracleTest("logits answers what an encoder says of a text or an image", "oracles", async () => {
  const folder = (name: string) => shared(`oracles/${name}`).pathname;
  const bert = JSON.parse(await Deno.readTextFile(`${folder("bert")}/expected.json`)).cases.single;
  const ids = bert.input_ids.join(",");
  const answer = JSON.parse((await oatmill("logits", folder("bert"), "--ids", ids, "--json")).stdout);
  answer.logits.forEach((x: number, i: number) => assert.ok(Math.abs(x - bert.logits[i]) < 1e-3));
  assert.equal(answer.labels.length, bert.logits.length);
  const image = shared("oracles/preprocess/smooth_48x48.jpg").pathname;
  const seen = JSON.parse((await oatmill("logits", folder("vit"), "--image", image, "--json")).stdout);
  assert.equal(seen.logits.length, seen.labels.length);
  assert.match((await oatmill("logits", folder("vit"), "--ids", "1")).stderr, /--image FILE/);
  assert.match((await oatmill("logits", folder("bert"), "--image", image)).stderr, /reads text, not images/);
});

Deno.test("pull fetches a model from the mirror in OATMILL_HUB_URL with the token in HF_TOKEN", async () => {
  const weights = Uint8Array.from({ length: 5000 }, (_, i) => i);
  const files = { "config.json": new TextEncoder().encode("{}"), "model.safetensors": weights };
  await using hub = new FakeHub({ repo: "tiny/llama", files, token: "hf_secret" });
  const dir = await Deno.makeTempDir();
  try {
    const out = join(dir, "llama"), args = ["pull", "tiny/llama", "--out", out, "--json"];
    const refused = await oatmillWith("", args, { OATMILL_HUB_URL: hub.url });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /oatmill: .*"tiny\/llama" \(status 401\).*HF_TOKEN/);
    const env = { OATMILL_HUB_URL: hub.url, HF_TOKEN: "hf_secret" };
    const { code, stdout, stderr } = await oatmillWith("", args, env);
    assert.equal(code, 0, stderr);
    const { model, commit, bytes } = JSON.parse(stdout);
    assert.deepEqual([model, commit, bytes], [out, COMMIT, 5002]);
    assert.deepEqual(await Deno.readFile(join(out, "model.safetensors")), weights);
    // Without the hub's hosts among the permissions the answer says what to add.
    const elsewhere = await oatmillWith("", args, { OATMILL_HUB_URL: "https://hub.example" });
    assert.match(elsewhere.stderr, /net access to "hub\.example:443": add the host to --allow-net/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

oracleTest("eval --images says how often a classifier of images is right", "data/vision", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeVitFolder(shared("data/vision/vit_cifar10_shamail/best_vit.pth").pathname, folder);
    const images = shared("data/vision/cifar10").pathname;
    const args = ["eval", folder, "--images", images, "--limit", "2"];
    const { code, stdout, stderr } = await oatmill(...args, "--json");
    assert.equal(code, 0, stderr);
    const { count, accuracy, top5_accuracy, classes } = JSON.parse(stdout);
    assert.deepEqual([count, classes.length, classes[0].label], [20, 10, "airplane"]);
    assert.ok(accuracy >= 0.4 && accuracy < 1 && top5_accuracy >= 0.8, `${accuracy}, ${top5_accuracy}`);
    assert.match((await oatmill(...args)).stdout, /^accuracy +\d+\.\d % +\(20 images\)\ntop 5/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

oracleTest("inspect --rollout shows what S and L look at in an image", "oracles/vit", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const artifact = join(dir, "a"), report = join(dir, "r.html");
    const images = shared("oracles/preprocess").pathname, image = join(images, "smooth_64x96.png");
    const recipe = ["--rate", "0.3", "--values", "f32", "--iterations", "2", "--sequences", "4"];
    const made = await oatmill(
      ...["compress", shared("oracles/vit").pathname, "--out", artifact, "--calibration", images],
      ...recipe,
    );
    assert.equal(made.code, 0, made.stderr);
    const shown = await oatmill("inspect", artifact, "--rollout", image, "--report", report, "--json");
    assert.equal(shown.code, 0, shown.stderr);
    const { rollout } = JSON.parse(shown.stdout);
    assert.deepEqual([rollout.image, rollout.rows, rollout.columns], ["smooth_64x96.png", 4, 4]);
    assert.deepEqual(rollout.parts.map((p: { part: string }) => p.part), ["whole", "sparse", "low_rank"]);
    assert.ok(rollout.parts.every((p: { map: number[] }) => p.map.length === 16));
    const page = await Deno.readTextFile(report);
    assert.equal(page.match(/<img alt="[^"]+" src="data:image\/png;base64,iVBOR/g)?.length, 4);
    assert.match(page, /L alone/);
    const dense = await oatmill("inspect", shared("oracles/vit").pathname, "--rollout", image);
    assert.deepEqual([dense.code, /it is no artifact/.test(dense.stderr)], [1, true]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("keys: added, shown once, listed and revoked", async () => {
  const data = await Deno.makeTempDir();
  try {
    const keys = (...args: string[]) => oatmill("keys", ...args, "--data", data);
    const read = async (...args: string[]) => JSON.parse((await keys(...args, "--json")).stdout);
    const { key, ...shown } = await read("add", "laptop", "--scopes", "infer,read,infer");
    assert.deepEqual([shown.name, shown.scopes, shown.last_used], ["laptop", ["infer", "read"], null]);
    const added = await keys("add", "phone");
    assert.match(added.stdout, /^oatmill-[0-9a-f]{12}-[\w-]{43}\n$/);
    assert.match(added.stderr, /may read, infer\. It is not shown again/);
    const { stdout } = await keys("list");
    assert.match(stdout, new RegExp(`${shown.id} +laptop +infer,read +\\d{4}-\\d\\d-\\d\\d +-`));
    assert.ok(!stdout.includes(key));
    assert.equal((await keys("revoke", shown.id)).code, 0);
    const again = await keys("revoke", shown.id);
    assert.deepEqual([again.code, again.stderr.includes(`No API key "${shown.id}"`)], [1, true]);
    assert.equal((await read("list")).length, 1);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});
