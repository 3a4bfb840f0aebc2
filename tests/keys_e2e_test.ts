/** API keys on the real server and through the real command. */
import assert from "node:assert/strict";
import OpenAI from "openai";
import { permissionsOf, ROOT, ServerProcess } from "./server_process.ts";

async function keys(data: string, ...args: string[]): Promise<{ readonly id: string; readonly key: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: [
      "run",
      "--no-prompt",
      ...permissionsOf("oatmill"),
      "main.ts",
      "keys",
      ...args,
      "--data",
      data,
      "--json",
    ],
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("a running server takes keys as they are added and refuses them once revoked", async () => {
  const data = await Deno.makeTempDir();
  try {
    await using server = await ServerProcess.start(data, { args: ["--no-bundled"] });
    assert.match(server.welcome, /No API keys: for this machine only/);
    const client = (apiKey: string) => new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
    assert.deepEqual((await client("none").models.list()).data, []);
    const { id, key } = await keys(data, "add", "reader", "--scopes", "read");
    await assert.rejects(async () => await client("none").models.list(), OpenAI.AuthenticationError);
    assert.deepEqual((await client(key).models.list()).data, []);
    await assert.rejects(
      client(key).completions.create({ model: "none", prompt: "x" }),
      OpenAI.PermissionDeniedError,
    );
    await keys(data, "revoke", id);
    await assert.rejects(async () => await client(key).models.list(), OpenAI.AuthenticationError);
    assert.equal((await server.get("/readyz")).status, 200);
    assert.ok(!server.log.includes(key));
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});

Deno.test("a server with keys in its environment asks for them from the start, and limits each", async () => {
  const data = await Deno.makeTempDir();
  const key = crypto.randomUUID();
  try {
    await using server = await ServerProcess.start(data, {
      args: ["--no-bundled", "--requests-per-minute", "1"],
      env: { OATMILL_API_KEYS: `another-key-of-some-length,${key}` },
    });
    assert.match(server.welcome, /Every request needs an API key/);
    const status = async (headers: HeadersInit) => (await server.get("/metrics", { headers })).status;
    assert.deepEqual([await status({}), await status({ authorization: `Bearer ${key}` })], [401, 200]);
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: key, maxRetries: 0 });
    const complete = () => client.completions.create({ model: "none", prompt: "x" });
    await assert.rejects(complete(), OpenAI.NotFoundError);
    await assert.rejects(complete(), OpenAI.RateLimitError);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});
