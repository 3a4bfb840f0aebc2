/** What every answer carries: security headers, its request's id, and CORS headers for the origins that are allowed. */
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import { requestId } from "hono/request-id";
import { secureHeaders } from "hono/secure-headers";
import type { AppEnv } from "./app_env.ts";

/** Longer ids would fill the log; clients send UUIDs (36). */
const MAX_ID_LENGTH = 128;

/** What Hono's requestId sets beforehand is lost where a handler makes its own Response, as streams do. */
const echoId = createMiddleware<AppEnv>(async (c, next) => {
  await next();
  c.header("x-request-id", c.get("requestId"));
});

/** What a page's script may read of an answer besides its body. */
const EXPOSED = [
  "retry-after",
  "x-request-id",
  "content-range",
  "etag",
  ...["limit", "remaining", "reset"].flatMap((what) =>
    ["requests", "tokens"].map((of) => `x-ratelimit-${what}-${of}`)
  ),
];

/**
 * Takes over a client's `x-request-id` of letters, digits, `-`, `_` and `=`; other requests get a new one.
 * Answers are data: a browser that shows one as a page runs and loads nothing (docs.ts allows its own script). No HSTS:
 * we speak HTTP, and what TLS ends at decides for its whole domain.
 * @param origins whose pages may call, such as `https://chat.example.org`; none: no page of another origin
 */
export function commonHeaders(origins: readonly string[]): MiddlewareHandler<AppEnv>[] {
  const secure = secureHeaders({
    contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
    strictTransportSecurity: false,
    xFrameOptions: "DENY",
    overwrite: false,
  });
  const shared = cors({ origin: [...origins], exposeHeaders: EXPOSED, maxAge: 600 });
  return [requestId({ limitLength: MAX_ID_LENGTH }), echoId, secure, ...origins.length > 0 ? [shared] : []];
}
