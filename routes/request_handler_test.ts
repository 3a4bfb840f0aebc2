import assert from "node:assert/strict";
import { FakeServer } from "../tests/fake_server.ts";
import { createWholeApp } from "./all_resources.ts";
import { requestHandler } from "./request_handler.ts";

/** Modules that one imports, and theirs, but for those of a dynamic import. */
async function staticImports(module: string): Promise<string[]> {
  const entry = new URL(`../${module}`, import.meta.url).href;
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json", entry] }).output();
  interface Module {
    readonly specifier: string;
    readonly dependencies?: readonly {
      readonly code?: { readonly specifier: string };
      readonly isDynamic?: boolean;
    }[];
  }
  const { modules }: { modules: Module[] } = JSON.parse(new TextDecoder().decode(stdout));
  const of = new Map(modules.map((m) => [m.specifier, m.dependencies ?? []]));
  const found = new Set<string>([entry]);
  for (const specifier of found) {
    for (const { code, isDynamic } of of.get(specifier) ?? []) {
      if (code && !isDynamic) found.add(code.specifier);
    }
  }
  return [...found].filter((s) => s.startsWith("file:"));
}

Deno.test("a server starts without the modules of other resources, source formats and families", async () => {
  const loaded = await staticImports("cli/serve.ts");
  const has = (path: string) => loaded.some((specifier) => specifier.endsWith(path));
  assert.ok(has("/routes/completions.ts") && has("/engine/engine.ts"));
  for (
    const later of [
      "/routes/all_resources.ts",
      "/routes/models.ts",
      "/models/open.ts",
      "/models/families/llama.ts",
    ]
  ) {
    assert.ok(!has(later), later);
  }
});

Deno.test("the first resources answer as the whole surface does, before and after it is loaded", async () => {
  await using server = await FakeServer.start();
  const handler = requestHandler(server.services), whole = createWholeApp(server.services);
  const info = {
    remoteAddr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
    completed: Promise.resolve(),
  } as const;
  const ask = async (answers: (r: Request, i: typeof info) => Response | Promise<Response>, path: string) => {
    const response = await answers(new Request(`http://127.0.0.1${path}`), info);
    return [response.status, await response.text()];
  };
  for (
    const path of [
      "/healthz",
      "/v1/models",
      "/healthz?x=1",
      "/v1/completions",
      "/*",
      "/openapi.json",
      "/nothing",
    ]
  ) {
    const [status, text] = await ask(handler, path);
    assert.deepEqual([status, text], await ask(whole.fetch, path), path);
  }
});

Deno.test("a limited path of another resource is found when it is the first that is asked for", async () => {
  await using server = await FakeServer.start();
  assert.equal((await server.post("/v1/loads", {})).status, 400);
});
