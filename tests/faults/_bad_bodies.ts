/** JSON bodies that no route takes: no JSON, and for each field of the OpenAPI document values that it forbids. */
import type { Random } from "../../engine/random.ts";
import { type BadInput, type Json, jsonInit } from "./_bad_input.ts";

const bytes = (...values: number[]) => Uint8Array.from(values);
const nested = (open: string, close: string, depth: number) => open.repeat(depth) + close.repeat(depth);

/** By what is wrong with them. */
const NO_BODIES: Readonly<Record<string, BodyInit>> = {
  "an empty body": "",
  "a blank": " ",
  "an open brace": "{",
  "a closing brace": "}",
  "an array": "[]",
  "null": "null",
  "a number": "1",
  "a string": '"text"',
  "a word": "undefined",
  "NaN": '{"model":NaN}',
  "a comma too many": '{"model":"x",}',
  "single quotes": "{'model':'x'}",
  "a comment": '{"model":"x"/* */}',
  "no quotes": "{model:1}",
  "two values": "{}{}",
  "a line break in a string": '{"model":"\n"}',
  "a wrong escape": '{"model":"\\x"}',
  "a cut escape": '{"model":"\\ud8',
  "a leading zero": '{"max_tokens":01}',
  "hexadecimal": '{"max_tokens":0x10}',
  "UTF-16": bytes(0xff, 0xfe, 0x7b, 0, 0x7d, 0),
  "bytes that are no UTF-8": bytes(0x7b, 0x22, 0xff, 0xc0, 0x22, 0x3a),
  "NUL bytes": new Uint8Array(1000),
  "a gzip header": bytes(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3),
  "a form": "model=x&prompt=y",
  "a page": "<!doctype html><title>x</title>",
  "nested arrays": nested("[", "]", 200_000),
  "nested objects": nested('{"a":', "}", 50_000).replace('{"a":}', '{"a":1}').slice(0, -1),
  "a prototype": '{"__proto__":{"model":"stories-5m","prompt":"x","input":"x"}}',
  "a constructor": '{"constructor":{"prototype":{"model":"stories-5m","prompt":"x"}}}',
};

/** A valid body of routes whose errors must name the field that was changed. */
const VALID: Readonly<Record<string, object>> = {
  "/v1/completions": { model: "stories-5m", prompt: "x", max_tokens: 1 },
  "/v1/chat/completions": { model: "stories-5m", messages: [{ role: "user", content: "x" }] },
  "/v1/responses": { model: "stories-5m", input: "x", max_output_tokens: 1 },
  "/v1/embeddings": { model: "stories-5m", input: "x" },
  "/v1/classify": { model: "stories-5m", input: "x" },
  "/v1/uploads": { filename: "a.txt", purpose: "user_data", bytes: 1, mime_type: "text/plain" },
  "/tokenize": { model: "stories-5m", prompt: "x" },
  "/detokenize": { model: "stories-5m", tokens: [1] },
};

/** @param random what is cut and changed of valid bodies */
export function badBodies(
  document: Json,
  { random, mutations }: { random: Random; mutations: number },
): BadInput[] {
  return Object.entries<Json>(document.paths).flatMap(([template, { post }]) => {
    const schema = post?.requestBody?.content["application/json"]?.schema;
    if (!schema) return [];
    const path = template.replaceAll(/\{\w+\}/g, "none"), valid = VALID[template];
    const noBodies = Object.entries(NO_BODIES).map(([what, body]) => ({ what, path, init: jsonInit(body) }));
    const broken = valid ? brokenTexts(JSON.stringify(valid), random, mutations) : [];
    return [
      ...noBodies,
      ...broken.map((text) => ({ what: `the body ${text}`, path, init: jsonInit(text) })),
      ...wrongFields(resolve(schema, document), document).map(([field, value]) => ({
        what: `${field}: ${JSON.stringify(value)}`,
        path,
        init: jsonInit(JSON.stringify({ ...valid, [field]: value })),
        ...valid ? { param: field } : {},
      })),
    ];
  });
}

/** A valid text with characters cut out or changed, where no JSON is left. */
function brokenTexts(text: string, random: Random, count: number): string[] {
  const broken: string[] = [], place = () => Math.floor(random.next() * text.length);
  while (broken.length < count) {
    const at = place(), other = String.fromCharCode(Math.floor(random.next() * 128));
    const changed = random.next() < 0.3 ? text.slice(0, at) : text.slice(0, at) + other + text.slice(at + 1);
    try {
      JSON.parse(changed);
    } catch {
      broken.push(changed);
    }
  }
  return broken;
}

const SAMPLES: readonly (readonly [type: string, value: unknown])[] = [
  ["null", null],
  ["boolean", true],
  ["integer", 1],
  ["number", 0.5],
  ["string", "no such value"],
  ["array", []],
  ["object", {}],
];

/** Each field with values of types that it does not have, and beyond its limits. */
function wrongFields(schema: Json, document: Json): [field: string, value: unknown][] {
  return Object.entries<Json>(schema.properties ?? {}).flatMap(([field, of]) => {
    const variants = variantsOf(of, document), types = new Set(variants.flatMap(typesOf));
    if (types.has("any")) return [];
    if (types.has("number")) types.add("integer");
    const values = SAMPLES.filter(([type]) => !types.has(type)).map(([, value]) => value);
    return [...values, ...beyondLimits(variants)].map((value) => [field, value] as [string, unknown]);
  });
}

/** The simple schemas of which a value must have one. */
function variantsOf(schema: Json, document: Json): Json[] {
  const resolved = resolve(schema, document);
  const inner = resolved.anyOf ?? resolved.oneOf ?? (resolved.allOf ? resolved.allOf.slice(0, 1) : null);
  return inner ? inner.flatMap((s: Json) => variantsOf(s, document)) : [resolved];
}
const resolve = (schema: Json, document: Json): Json =>
  schema.$ref ? document.components.schemas[schema.$ref.split("/").at(-1)] : schema;

function typesOf({ type, enum: values }: Json): string[] {
  if (type !== undefined) return [type].flat();
  return values ? values.map((v: unknown) => v === null ? "null" : typeof v) : ["any"];
}

function beyondLimits(variants: readonly Json[]): unknown[] {
  const [only, ...others] = variants.filter((v) => v.type !== "null");
  if (!only || others.length > 0) return [];
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, enum: values, type } = only;
  const beyond = [
    minimum === undefined ? undefined : minimum - 1,
    maximum === undefined ? undefined : maximum + 1,
    exclusiveMinimum,
    exclusiveMaximum,
    values && [type].flat().includes("string") ? "no such value" : undefined,
  ];
  return beyond.filter((v) => v !== undefined && Math.abs(Number(v) || 0) <= 2 ** 53);
}
