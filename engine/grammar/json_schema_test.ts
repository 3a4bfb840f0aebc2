import assert from "node:assert/strict";
import { byteTokenizer, EOS } from "../../tests/fake_engine.ts";
import { Grammars } from "./grammars.ts";
import { type JsonSchema, prepareSchema } from "./json_schema.ts";
import { MaskMailbox } from "./mask_mailbox.ts";
import { vocabularyTokens } from "./vocabulary.ts";

const prepared = (schema: JsonSchema) => {
  const result = prepareSchema(schema);
  assert.ok(typeof result !== "string", String(result));
  return result;
};

Deno.test("prepareSchema() names what a grammar cannot enforce, and where", () => {
  const cases: [schema: JsonSchema, found: string[]][] = [
    [{ type: "integer", multipleOf: 5 }, ['#: "multipleOf" cannot be enforced']],
    [
      { properties: { not: { items: { uniqueItems: true } } }, additionalProperties: false },
      ['#/properties/not/items: "uniqueItems" cannot be enforced'],
    ],
    [{ $defs: { a: { allOf: [{}, { not: {} }] } } }, [
      '#/$defs/a: "allOf" of several schemas cannot be enforced',
      '#/$defs/a/allOf/1: "not" cannot be enforced',
    ]],
    [{ pattern: "^(?!a)b$" }, ['#: "pattern" looks around']],
    [{ pattern: "^b$", minLength: 3 }, ['#: "minLength" cannot be enforced beside "pattern"']],
    [{ properties: { a: {} }, additionalProperties: true }, [
      '#: "additionalProperties" beside "properties" must be false',
    ]],
    [{ properties: { a: {} }, required: ["a", "b"] }, [
      '#: "required" has "b", which "properties" does not have',
    ]],
    [{ enum: [{ not: 1 }], const: { multipleOf: 2 } }, []],
    [{ type: "object", properties: { if: { type: "string" } }, required: ["if"] }, []],
  ];
  for (const [schema, found] of cases) {
    assert.deepEqual(prepared(schema).loose, found, JSON.stringify(schema));
  }
});

Deno.test("prepareSchema() refuses what is nested too deeply for any function, in little time", () => {
  let schema: JsonSchema = {};
  for (let i = 0; i < 200_000; i++) schema = { items: schema };
  assert.match(String(prepareSchema(schema)), /more than 64 levels/);
});

Deno.test("numbers keep within bounds that stand alone", async () => {
  const cases: [schema: JsonSchema, yes: string[], no: string[]][] = [
    [{ type: "integer", minimum: 5 }, ["5", "6", "12", "1000"], ["3", "4", "-7"]],
    [{ type: "integer", maximum: -3 }, ["-3", "-4", "-100"], ["-1", "0", "3"]],
    [{ type: "integer", exclusiveMinimum: 5 }, ["6", "50"], ["5", "1"]],
    [{ type: "number", minimum: 5 }, ["5", "6.5", "117"], ["3", "4.5"]],
  ];
  const grammars = new Grammars(byteTokenizer.vocabSize);
  try {
    for (const [schema, yes, no] of cases) {
      const fits = async (text: string) => {
        using masks = await grammars.open({
          source: { schema: JSON.stringify(prepared(schema).schema), strict: true },
          vocabulary: async () => ({ tokens: await vocabularyTokens(byteTokenizer), stopIds: [EOS] }),
          param: "response_format",
        });
        const leader = new MaskMailbox(masks.buffer);
        return [...new TextEncoder().encode(text), EOS].every((token) => {
          const mask = leader.next();
          const allowed = typeof mask !== "string" && (mask[token >> 5] >>> (token & 31) & 1) === 1;
          if (allowed) leader.accept(token);
          return allowed;
        });
      };
      for (const text of yes) assert.ok(await fits(text), `${text} of ${JSON.stringify(schema)}`);
      for (const text of no) assert.ok(!await fits(text), `${text} of ${JSON.stringify(schema)}`);
    }
  } finally {
    grammars.close();
  }
});
