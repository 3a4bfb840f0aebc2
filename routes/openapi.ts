/** GET /openapi.json: what the routes say of themselves, and what holds for all of them: names, keys, error statuses. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { AppEnv } from "./app_env.ts";
import { scopeOf } from "./scopes.ts";

/** What decides which errors an operation can answer with. */
interface Traits {
  readonly open: boolean;
  readonly infers: boolean;
  /** Adds, changes or deletes what the server keeps. */
  readonly writes: boolean;
  readonly hasBody: boolean;
  readonly hasParameters: boolean;
  readonly hasRanges: boolean;
  readonly path: string;
}

const RETRY_AFTER = {
  "retry-after": { description: "Seconds after which to try again", schema: { type: "integer" } },
};
interface Status {
  readonly status: number;
  readonly description: string;
  readonly applies: (traits: Traits) => boolean;
  readonly headers?: object;
}
export const STATUSES: readonly Status[] = [
  {
    status: 400,
    description: "A field is missing, has a wrong type or value, or what was sent cannot be used",
    applies: (t) => t.hasBody || t.hasParameters,
  },
  { status: 401, description: "No API key, or one that the server does not know", applies: (t) => !t.open },
  { status: 403, description: "The API key or the web page may not do this", applies: (t) => !t.open },
  {
    status: 404,
    description: "No such model, job or file",
    applies: (t) => t.infers || t.writes || t.hasParameters,
  },
  { status: 408, description: "The body did not arrive", applies: (t) => t.hasBody },
  { status: 409, description: "The present state forbids it", applies: (t) => t.writes },
  { status: 413, description: "The body or a file is larger than allowed", applies: (t) => t.hasBody },
  { status: 415, description: "The media type is not accepted", applies: (t) => t.hasBody },
  { status: 416, description: "The file has no such range", applies: (t) => t.hasRanges },
  {
    status: 429,
    description: "The queue is full, or a minute's requests or tokens are used up",
    applies: (t) => t.infers,
    headers: RETRY_AFTER,
  },
  { status: 500, description: "An error of the server; its log has the cause", applies: () => true },
  {
    status: 503,
    description: "Not at the moment: the server starts or shuts down, or what is asked for is on its way",
    applies: (t) => !t.open || t.path === "/readyz",
    headers: RETRY_AFTER,
  },
  {
    status: 507,
    description: "The disk or the memory is full",
    applies: (t) => t.infers || (t.writes && t.hasBody),
  },
];

type Document = ReturnType<OpenAPIHono<AppEnv>["getOpenAPI31Document"]>;
type PathItem = NonNullable<Document["paths"]>[string];
type Operation = NonNullable<PathItem["get"]>;
const METHODS = ["get", "post", "delete"] as const;

/** Serves the document; made when it is first asked for, from the routes that there are then. */
export function serveDocument(app: OpenAPIHono<AppEnv>, version: string): void {
  let document: Document | undefined;
  app.get("/openapi.json", (c) => c.json(document ??= openApiDocument(app, version)));
}

function openApiDocument(app: OpenAPIHono<AppEnv>, version: string): Document {
  app.openAPIRegistry.registerComponent("securitySchemes", "key", {
    type: "http",
    scheme: "bearer",
    description: "Needed once the server has API keys",
  });
  const document = app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "Oatmill",
      version,
      description: "Compresses transformers and serves them on CPUs",
      license: { name: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    security: [{}, { key: [] }],
  });
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const method of METHODS) if (item[method]) complete(item[method], method, path);
  }
  return mendNullable(document) as Document;
}

/**
 * The generator writes a named schema that may be null as all of itself and "an object or null", which null is not: it
 * becomes any of itself and null.
 */
function mendNullable(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(mendNullable);
  if (typeof node !== "object" || node === null) return node;
  const { allOf, ...rest } = node as { allOf?: { $ref?: string; type?: unknown }[] };
  const [named, orNull] = allOf ?? [];
  if (named?.$ref && Array.isArray(orNull?.type) && orNull.type.includes("null")) {
    return { ...rest, anyOf: [named, { type: "null" }] };
  }
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, mendNullable(value)]));
}

function complete(operation: Operation, method: string, path: string): void {
  const scope = scopeOf(method.toUpperCase(), path);
  operation.operationId ??= operationId(method, path);
  if (scope === null) operation.security = [];
  const { default: error, ...responses } = operation.responses ?? {};
  const traits: Traits = {
    path,
    open: scope === null,
    infers: scope === "infer",
    writes: scope === "admin",
    hasBody: operation.requestBody !== undefined,
    hasParameters: (operation.parameters ?? []).length > 0,
    hasRanges: "206" in responses,
  };
  const errors = STATUSES.filter(({ applies }) => applies(traits))
    .map(({ status, description, headers }) => [status, { ...error, description, headers }] as const);
  operation.responses = { ...responses, ...Object.fromEntries(error ? errors : []) };
}

/** As in `getV1ModelsId`: what generated clients call it. */
function operationId(method: string, path: string): string {
  const words = path.split(/[^A-Za-z0-9]+/).filter(Boolean);
  return method + words.map((word) => word[0].toUpperCase() + word.slice(1)).join("");
}
