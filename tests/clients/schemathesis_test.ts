/** schemathesis: requests made of /openapi.json, to a real server; each answer must be one that the document has. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ServerProcess } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { pythonWith, run } from "./python.ts";

// deno-lint-ignore no-explicit-any -- the document, looked into by path
type Json = any;

const MODEL = "stories-5m";
const CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_headers_conformance",
  "response_schema_conformance",
  "negative_data_rejection",
];
const CLI = "from schemathesis.cli import schemathesis; schemathesis()";
/** For each operation, beside those that cover each field's borders. */
const EXAMPLES = 10;

/**
 * The document with what is on the server: no model has a name that was made up. Answers are short, so that there is
 * time for many.
 */
function pointed(document: Json): Json {
  const model = { enum: [MODEL] };
  const narrowed: Readonly<Record<string, object>> = {
    model,
    max_tokens: { type: "integer", minimum: 0, maximum: 4 },
    max_completion_tokens: { type: "integer", minimum: 0, maximum: 4 },
    max_output_tokens: { type: "integer", minimum: 1, maximum: 4 },
    n: { type: "integer", minimum: 1, maximum: 3 },
  };
  const narrow = (node: Json): Json => {
    if (Array.isArray(node)) return node.map(narrow);
    if (typeof node !== "object" || node === null) return node;
    const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, narrow(value)]));
    for (const name of Object.keys(copy.properties ?? {})) {
      if (name in narrowed) (copy.properties as Json)[name] = narrowed[name];
    }
    return copy;
  };
  const requests = narrow(document);
  requests.paths["/v1/models/{id}"].get.parameters[0].schema = model;
  delete requests.paths["/v1/loads"].post; // it would take the server from the others
  return requests;
}

const python = pythonWith("schemathesis");
const why = python ? "" : " (ignored: no Python with schemathesis; tests/clients/requirements.txt)";

Deno.test({
  name:
    `schemathesis finds every answer in the document, no server error, nothing taken that it forbids${why}`,
  ignore: python === null,
  fn: async () => {
    const data = await dataFolderWithModel();
    const scratch = await Deno.makeTempDir();
    try {
      await using server = await ServerProcess.start(data);
      const document = await (await server.get("/openapi.json")).json();
      await Deno.writeTextFile(join(scratch, "openapi.json"), JSON.stringify(pointed(document)));
      const args = ["run", "openapi.json", "--url", server.url, "--checks", CHECKS.join(",")];
      const limits = ["--phases", "coverage,fuzzing", "--max-examples", String(EXAMPLES), "--seed", "7"];
      const manner = ["--continue-on-failure", "--no-shrink", "--request-timeout", "60"];
      const { success, output } = await run(python!, ["-c", CLI, ...args, ...limits, ...manner], {
        cwd: scratch,
        env: { NO_COLOR: "1" },
      });
      assert.ok(success, output);
      assert.equal((await server.get("/readyz")).status, 200);
    } finally {
      await Deno.remove(data, { recursive: true });
      await Deno.remove(scratch, { recursive: true });
    }
  },
});
