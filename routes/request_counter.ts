/** Counts every request by the route that answered it and the status. */
import type { MiddlewareHandler } from "hono";
import { createMiddleware } from "hono/factory";
import { routePath } from "hono/route";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** Others are `_OTHER`, as OpenTelemetry's conventions for HTTP say: what clients make up must not make time series. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** Goes before everything that may refuse a request. */
export function countRequests(telemetry: Telemetry): MiddlewareHandler {
  return createMiddleware(async (c, next) => {
    await next();
    telemetry.add("httpRequests", 1, {
      "http.request.method": METHODS.has(c.req.method) ? c.req.method : "_OTHER",
      "http.route": routePath(c, -1),
      "http.response.status_code": c.res.status,
    });
  });
}
