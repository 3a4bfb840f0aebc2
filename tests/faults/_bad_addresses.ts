/** Paths, queries, methods and headers that no route takes. */
import { type BadInput, type Json, jsonInit } from "./_bad_input.ts";

const IDS = [
  "none",
  "%00",
  "%zz",
  "%ff%fe",
  "%e2%28%a1",
  "..%2F..%2Fetc%2Fpasswd",
  "..%5C..%5Cboot.ini",
  "__proto__",
  "constructor",
  "toString",
  "none@0123456789ab",
  "stories-5m@",
  "stories-5m@ffffffffffff",
  "' OR 1=1 --",
  "%F0%9F%8C%BE",
  "a".repeat(8000),
];
const NUMBERS = ["x", "-1", "0.5", "1e99", "NaN", "", "99999999999999999999"];
const TYPES = [
  "text/plain",
  "application/xml",
  "application/x-www-form-urlencoded",
  "application/octet-stream",
  "x",
];

export function badAddresses(document: Json): BadInput[] {
  const operations = Object.entries<Json>(document.paths).flatMap(([path, item]) =>
    Object.entries<Json>(item).map(([method, operation]) => ({
      path,
      method: method.toUpperCase(),
      operation,
    }))
  );
  return [
    ...operations.flatMap(({ path, method }) => wrongIds(path, method)),
    ...operations.flatMap(({ path, method, operation }) => wrongQueries(path, method, operation)),
    ...operations.flatMap(({ path, operation }) => wrongTypes(path, operation)),
    ...Object.keys(document.paths).flatMap((path) => wrongMethods(path, document.paths[path])),
    ...["/v1", "/v1/", "/v1/nothing", "/v2/models", "//v1/models", "/v1/models/", "/%2e%2e/x", "/V1/MODELS"]
      .map((path) => ({
        what: "no such route",
        path,
        init: {},
      })),
  ];
}

const withId = (path: string, id: string) => path.replace(/\{\w+\}/, id).replaceAll(/\{\w+\}/g, "none");

const wrongIds = (path: string, method: string): BadInput[] =>
  path.includes("{")
    ? IDS.map((id) => ({
      what: `the id ${id.slice(0, 40)}`,
      path: withId(path, id),
      init: method === "POST" ? jsonInit("{}") : { method },
    }))
    : [];

function wrongQueries(path: string, method: string, { parameters = [] }: Json): BadInput[] {
  if (method !== "GET") return [];
  return parameters.flatMap(({ in: place, name, schema }: Json) => {
    if (place !== "query") return [];
    const values = schema.type === "integer" || schema.type === "number" ? NUMBERS : ["nonsense"];
    return values.filter((value) => value !== "" || schema.minimum > 0).map((value) => ({
      what: `${name}=${value}`,
      path: `${withId(path, "none")}?${new URLSearchParams({ [name]: value })}`,
      init: {},
    }));
  }).filter((input: BadInput) => !/[?]purpose=/.test(input.path)); // a list of none
}

const wrongTypes = (path: string, { requestBody }: Json): BadInput[] =>
  requestBody
    ? TYPES.map((type) => ({
      what: `the media type ${type}`,
      path: withId(path, "none"),
      init: { method: "POST", headers: { "content-type": type }, body: "{}" },
    }))
    : [];

const wrongMethods = (path: string, item: Json): BadInput[] =>
  ["GET", "POST", "PUT", "PATCH", "DELETE"].filter((method) => !(method.toLowerCase() in item)).map((
    method,
  ) => ({
    what: "the method",
    path: withId(path, "none"),
    init: { method },
  }));

/** Where a key is needed. */
export function badKeys(document: Json): BadInput[] {
  const values = [
    undefined,
    "",
    "Bearer",
    "Bearer ",
    "Basic eDp5",
    "Bearer wrong-key-of-some-length",
    "bearer  a b",
    `Bearer ${"x".repeat(8000)}`,
  ];
  return Object.entries<Json>(document.paths).flatMap(([path, item]) =>
    Object.entries<Json>(item).filter(([, operation]) => operation.security === undefined).flatMap((
      [method],
    ) =>
      values.map((value) => ({
        what: `authorization: ${value?.slice(0, 40)}`,
        path: withId(path, "none"),
        init: {
          method: method.toUpperCase(),
          headers: (value === undefined ? {} : { authorization: value }) as Record<string, string>,
        },
      }))
    )
  );
}
