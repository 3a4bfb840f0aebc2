/** openai-python (openai_client.py), of real engines. */
import assert from "node:assert/strict";
import { FakeServer } from "../fake_server.ts";
import { withOracle } from "../oracle_server.ts";
import { openChatting } from "../testing/chatting_model.ts";
import { pythonWith, run } from "./python.ts";

const python = pythonWith("openai");
const why = python ? "" : " (ignored: no Python with openai; tests/clients/requirements.txt)";

async function passes(server: FakeServer, suite: string): Promise<void> {
  const { success, output } = await run(python!, ["-m", "unittest", `openai_client.${suite}`], {
    env: { OATMILL_URL: server.url },
  });
  assert.ok(success, output);
  assert.match(output, /\nRan \d+ tests? in /);
}

Deno.test({
  name: `openai-python: text, files, errors${why}`,
  ignore: python === null,
  fn: async () => {
    await using server = await FakeServer.start({ open: openChatting });
    await passes(server, "Text");
  },
});

if (python) withOracle("openai-python: embeddings", "bert", (server) => passes(server, "Embeddings"));
