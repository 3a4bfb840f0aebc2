/** The OpenAPI document, by a validator that is not ours. */
import assert from "node:assert/strict";
import { it } from "@std/testing/bdd";
import { Validator } from "@seriousme/openapi-schema-validator";
import { FakeServer } from "./fake_server.ts";

it("/openapi.json is a valid OpenAPI 3.1 document", async () => {
  await using server = await FakeServer.start();
  const response = await server.get("/openapi.json");
  assert.equal(response.status, 200);
  const validator = new Validator();
  const { valid, errors } = await validator.validate(await response.json());
  assert.ok(valid, JSON.stringify(errors));
  assert.equal(validator.version, "3.1");
});
