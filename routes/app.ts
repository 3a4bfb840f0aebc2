/** Resources mounted under what holds for all of them: limits, errors, headers, keys. */
import { OpenAPIHono } from "@hono/zod-openapi";
import { bodyLimit } from "hono/body-limit";
import { contextStorage } from "hono/context-storage";
import { OatmillError } from "../errors.ts";
import { requireKey } from "./api_keys.ts";
import type { AppEnv } from "./app_env.ts";
import { onError } from "./errors.ts";
import { refuseForeignPages } from "./foreign_pages.ts";
import { commonHeaders } from "./headers.ts";
import { readJsonBody } from "./bounded_json.ts";
import { limitRate } from "./rate_limits.ts";
import { countRequests } from "./request_counter.ts";
import { logRequests } from "./request_log.ts";
import type { Services } from "./services.ts";
import { countTraffic } from "./traffic.ts";

/** Routes that read their whole body into memory. */
const LIMITED = [
  "/v1/completions",
  "/v1/chat/completions",
  "/v1/classify",
  "/v1/embeddings",
  "/v1/loads",
  "/v1/models/:id",
  "/v1/responses",
  "/v1/speeds",
  "/v1/uploads",
  "/v1/uploads/:id/complete",
  "/tokenize",
  "/detokenize",
];

/** Makes the routes of one resource. */
export type Resource = (services: Services) => OpenAPIHono;

export interface AppOptions {
  /** A proxy before the server knows who calls. */
  readonly allowAnonymous?: boolean;
}

export function createApp(
  services: Services,
  resources: readonly Resource[],
  { allowAnonymous = false }: AppOptions = {},
): OpenAPIHono<AppEnv> {
  const app = new OpenAPIHono<AppEnv>();
  app.onError(onError);
  app.notFound((c) =>
    onError(
      new OatmillError("not_found", `No route for ${c.req.method} ${c.req.path}: /docs has them all`),
      c,
    )
  );
  app.use("*", async (c, next) => {
    await next();
    // Hono answers HEAD by the GET handler and drops the body: its file or stream must end.
    if (c.req.method === "HEAD") await c.res.body?.cancel();
  });
  app.use("*", countRequests(services.telemetry), contextStorage(), ...commonHeaders(services.corsOrigins));
  app.use("*", logRequests(), countTraffic(services.traffic));
  const pages = refuseForeignPages({ origins: services.corsOrigins, allowAnonymous });
  app.use("*", requireKey(services.keys), pages, limitRate(services.rates));
  const limit = bodyLimit({
    maxSize: services.limits.jsonBytes,
    onError: () => {
      throw new OatmillError("too_large", `Body exceeds the allowed ${services.limits.jsonBytes} bytes`);
    },
  });
  app.on("POST", LIMITED, readJsonBody({ maxBytes: services.limits.jsonBytes }), limit);

  for (const resource of resources) app.route("/", resource(services));
  return app;
}
