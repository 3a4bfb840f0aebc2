/** What operators and their machines ask: /healthz, /readyz, /metrics. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { errorResponse } from "./errors.ts";
import { resource, type Services } from "./services.ts";

const statusSchema = z.object({ status: z.literal("ok"), version: z.string() });

const healthRoute = createRoute({
  method: "get",
  path: "/healthz",
  summary: "Is the process alive?",
  responses: {
    200: { description: "It is", content: { "application/json": { schema: statusSchema } } },
    default: errorResponse,
  },
});
const readyRoute = createRoute({
  method: "get",
  path: "/readyz",
  summary: "Does it take requests?",
  responses: {
    200: { description: "It does", content: { "application/json": { schema: statusSchema } } },
    default: errorResponse,
  },
});
const metricsRoute = createRoute({
  method: "get",
  path: "/metrics",
  summary: "Metrics as Prometheus text",
  responses: {
    200: { description: "Metrics", content: { "text/plain": { schema: z.string() } } },
    default: errorResponse,
  },
});

export function operations(services: Services): OpenAPIHono {
  const { version, telemetry } = services;
  const app = resource();
  app.openapi(healthRoute, (c) => c.json({ status: "ok" as const, version }, 200));
  app.openapi(readyRoute, (c) => {
    const reason = services.notReady();
    if (reason !== null) throw new OatmillError("unavailable", reason);
    return c.json({ status: "ok" as const, version }, 200);
  });
  app.openapi(
    metricsRoute,
    async (c) =>
      c.text(await telemetry.metricsText(), 200, {
        "content-type": "text/plain; version=0.0.4; charset=utf-8",
      }),
  );
  return app;
}
