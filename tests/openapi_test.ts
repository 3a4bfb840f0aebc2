/** The OpenAPI document, by a validator that is not ours, and the page that shows it. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import { Validator } from "@seriousme/openapi-schema-validator";
import { parseHTML } from "linkedom";
import { ERRORS } from "../errors.ts";
import { createWholeApp } from "../routes/all_resources.ts";
import { STATUSES } from "../routes/openapi.ts";
import { FakeServer } from "./fake_server.ts";

// deno-lint-ignore no-explicit-any -- the document, looked into by path
type Json = any;

/** Outside the document: it, pages and their files. */
const UNLISTED = ["/openapi.json", "/docs", "/", "console.css", "console.js", "icon.svg"];

describe("/openapi.json", () => {
  let server: FakeServer, document: Json;
  beforeAll(async () => {
    server = await FakeServer.start();
    const response = await server.get("/openapi.json");
    assert.equal(response.status, 200);
    document = await response.json();
  });
  afterAll(() => server[Symbol.asyncDispose]());
  const operations = (): [name: string, operation: Json][] =>
    Object.entries<Json>(document.paths).flatMap(([path, item]) =>
      Object.entries<Json>(item).map(([method, operation]) =>
        [`${method.toUpperCase()} ${path}`, operation] as [string, Json]
      )
    );

  it("is a valid OpenAPI 3.1 document", async () => {
    const validator = new Validator();
    const { valid, errors } = await validator.validate(structuredClone(document));
    assert.ok(valid, JSON.stringify(errors));
    assert.equal(validator.version, "3.1");
  });

  it("has every route, each with a name of its own", () => {
    const routes = createWholeApp(server.services).routes
      .filter(({ method, path }) =>
        method !== "ALL" && !path.includes("*") && !UNLISTED.includes(path.replace("/console/", ""))
      )
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`);
    const listed = operations().map(([name]) => name);
    assert.deepEqual([...new Set(routes)].sort(), listed.toSorted());
    assert.equal(new Set(operations().map(([, { operationId }]) => operationId)).size, listed.length);
  });

  it("has the error statuses of every operation, in the errors' shape", () => {
    for (const [name, { responses, requestBody, security }] of operations()) {
      const statuses = Object.keys(responses);
      assert.ok(statuses.includes("500") && !statuses.includes("default"), name);
      assert.equal(statuses.includes("401"), security === undefined, name);
      if (requestBody) assert.ok(["400", "413", "415"].every((s) => statuses.includes(s)), name);
      for (const status of statuses.filter((s) => s >= "400")) {
        const schema = responses[status].content["application/json"].schema;
        assert.deepEqual(schema, { $ref: "#/components/schemas/Error" }, `${name} ${status}`);
      }
    }
    const known = STATUSES.map(({ status }) => status);
    assert.deepEqual(Object.values(ERRORS).filter(({ status }) => !known.includes(status)), []);
    const { responses } = document.paths["/v1/completions"].post;
    assert.deepEqual(Object.keys(responses), [
      "200",
      "400",
      "401",
      "403",
      "404",
      "408",
      "413",
      "415",
      "429",
      "500",
      "503",
      "507",
    ]);
    assert.ok(responses[429].headers["retry-after"] && responses[503].headers["retry-after"]);
  });

  it("has the media type of streams where `stream` is a field", () => {
    const { schemas } = document.components;
    const streaming = operations().filter(([, { requestBody }]) => {
      const schema = requestBody?.content["application/json"]?.schema;
      return (schema?.properties ?? schemas[schema?.$ref?.split("/").at(-1)]?.properties)?.stream !==
        undefined;
    });
    assert.deepEqual(streaming.map(([name]) => name), [
      "POST /v1/completions",
      "POST /v1/chat/completions",
      "POST /v1/responses",
    ]);
    for (const [name, { responses }] of streaming) {
      assert.ok(responses[200].content["text/event-stream"], name);
    }
  });

  it("lets a named schema be null where it may", () => {
    const { file } = document.components.schemas.Upload.properties;
    assert.deepEqual(file, { anyOf: [{ $ref: "#/components/schemas/File" }, { type: "null" }] });
  });

  it("is shown by /docs, which asks nobody else", async () => {
    const response = await server.get("/docs");
    const page = parseHTML(await response.text()).document;
    assert.match(
      response.headers.get("content-security-policy")!,
      /^default-src 'none';.*connect-src 'self'/,
    );
    assert.deepEqual([...page.querySelectorAll("[src], link")], []);
    const asked: string[] = [];
    const ask = (path: string) => (asked.push(path), server.get(path));
    const script = page.querySelector("script")!.textContent;
    await new Function("document", "fetch", `return (async () => {${script}})();`)(page, ask);
    assert.deepEqual(asked, ["/openapi.json"]);
    const titles = [...page.querySelectorAll("summary code")].map((code) => code.textContent);
    for (const [name] of operations()) assert.ok(titles.includes(name), name);
  });
});
