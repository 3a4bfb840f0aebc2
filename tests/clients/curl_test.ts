/** curl, as people paste it: streams as they come, uploads, HEAD, `Expect: 100-continue`, what is no JSON. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import { FakeServer } from "../fake_server.ts";
import { ROOT } from "../server_process.ts";
import { openChatting } from "../testing/chatting_model.ts";

const MODEL = "fake";
const JSON_TYPE = ["-H", "content-type: application/json"];
const PROMPT = { model: MODEL, prompt: "Once upon a time", temperature: 0 };

function hasCurl(): boolean {
  try {
    return new Deno.Command("curl", { args: ["--version"], stdout: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

interface Answer {
  readonly status: number;
  /** What came before the body: also `100 Continue`. */
  readonly head: string;
  readonly body: string;
}
async function curl(...args: string[]): Promise<Answer> {
  const { stdout, stderr } = await new Deno.Command("curl", {
    args: ["-sS", "--max-time", "60", "-D", "/dev/stderr", ...args],
  }).output();
  const head = new TextDecoder().decode(stderr);
  const status = Number([...head.matchAll(/^HTTP\/1\.1 (\d+)/gm)].at(-1)?.[1]);
  return { status, head, body: new TextDecoder().decode(stdout) };
}

describe(hasCurl() ? "curl" : "curl (ignored: it is not installed)", () => {
  if (!hasCurl()) return it.skip("", () => {});
  let server: FakeServer;
  beforeAll(async () => {
    server = await FakeServer.start({ open: openChatting, limits: { jsonBytes: 2 ** 20 } });
  });
  afterAll(() => server[Symbol.asyncDispose]());
  const post = (path: string, body: string, ...args: string[]) =>
    curl(...JSON_TYPE, ...args, "--data-binary", body, server.url + path);

  it("-N shows a stream's events as they come", async () => {
    const body = JSON.stringify({ ...PROMPT, max_tokens: 200, ignore_eos: true, stream: true });
    const child = new Deno.Command("curl", {
      args: ["-sSN", ...JSON_TYPE, "-d", body, `${server.url}/v1/completions`],
      stdout: "piped",
    }).spawn();
    let text = "", reads = 0;
    for await (const chunk of child.stdout) {
      text += new TextDecoder().decode(chunk);
      reads++;
    }
    assert.ok((await child.status).success);
    assert.ok(reads > 10, `${reads} reads`);
    assert.match(text, /\ndata: \[DONE\]\n\n$/);
    assert.ok(text.split("\n\n").slice(0, -1).every((event) => event.startsWith("data: ")));
  });

  it("HEAD has the headers of GET, and no body", async () => {
    for (
      const path of [
        "/healthz",
        "/v1/models",
        "/metrics",
        `/v1/models/${MODEL}/files/oatmill.json`,
        "/v1/models/none",
      ]
    ) {
      const head = await curl("-I", server.url + path), get = await curl(server.url + path);
      const type = (answer: Answer) => /^content-type: (.+)\r$/m.exec(answer.head)![1];
      assert.deepEqual(
        [head.status, type(head), head.body.includes("{")],
        [get.status, type(get), false],
        path,
      );
    }
  });

  it("hears 100 Continue, and a refusal of what is too large however it is sent", async () => {
    const expecting = ["-H", "expect: 100-continue"];
    const fine = await post("/v1/completions", JSON.stringify(PROMPT), ...expecting);
    assert.match(fine.head, /^HTTP\/1\.1 100 Continue/);
    assert.equal(fine.status, 200);
    const large = await Deno.makeTempFile();
    await Deno.writeTextFile(large, " ".repeat(2 * 2 ** 20));
    const refused = await post("/v1/completions", `@${large}`, ...expecting);
    assert.deepEqual([refused.status, JSON.parse(refused.body).error.code], [413, "too_large"]);
    const chunked = await post("/v1/completions", `@${large}`, "-H", "transfer-encoding: chunked");
    assert.deepEqual([chunked.status, JSON.parse(chunked.body).error.code], [413, "too_large"]);
    await Deno.remove(large);
  });

  it("-F uploads a model, whose job's events end, and which then answers", async () => {
    const folder = join(ROOT, "models/default");
    const files = [...Deno.readDirSync(folder)].filter(({ name }) =>
      /^(config|tokenizer).*json$|safetensors$/.test(name)
    );
    const recipe = JSON.stringify({
      method: "none",
      values: "int8",
      rounding: "nearest",
      evaluate: { tokens: 64 },
    });
    const form = files.flatMap(({ name }) => ["-F", `files=@${join(folder, name)}`]);
    const { status, body } = await curl(
      "-F",
      "name=curled",
      "-F",
      `recipe=${recipe}`,
      ...form,
      `${server.url}/v1/models`,
    );
    assert.equal(status, 202, body);
    const { id } = JSON.parse(body);
    const events = await curl(
      "-N",
      "-H",
      "accept: text/event-stream",
      `${server.url}/v1/compressions/${id}/events`,
    );
    assert.match(events.body, /\ndata: \[DONE\]\n\n$/);
    const { status: answered, body: answer } = await post(
      "/v1/completions",
      JSON.stringify({ ...PROMPT, model: "curled" }),
    );
    assert.deepEqual([answered, JSON.parse(answer).choices[0].text.length > 0], [200, true], answer);
  });

  it("hears what is wrong with its body", async () => {
    const refused = async (status: number, code: string, ...args: string[]) => {
      const answer = await curl(...args, `${server.url}/v1/chat/completions`);
      assert.deepEqual([answer.status, JSON.parse(answer.body).error.code], [status, code], args.join(" "));
    };
    await refused(415, "unsupported_media_type", "-d", JSON.stringify(PROMPT)); // curl says it is a form
    await refused(400, "invalid_request", ...JSON_TYPE, "-d", "{");
    await refused(400, "invalid_request", ...JSON_TYPE, "-d", "");
    await refused(404, "not_found");
    await refused(404, "not_found", ...JSON_TYPE, "-X", "PUT", "-d", "{}");
  });
});
