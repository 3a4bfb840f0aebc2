/** The HTTP surface: every resource mounted, and what holds for all of them (limits, errors, headers). */
import { OpenAPIHono } from "@hono/zod-openapi";
import { bodyLimit } from "hono/body-limit";
import { contextStorage } from "hono/context-storage";
import { OatmillError } from "../errors.ts";
import { requireKey } from "./api_keys.ts";
import type { AppEnv } from "./app_env.ts";
import { chatCompletions } from "./chat_completions.ts";
import { classify } from "./classify.ts";
import { completions } from "./completions.ts";
import { compressions } from "./compressions.ts";
import { consolePage } from "./console/console.ts";
import { docs } from "./docs.ts";
import { embeddings } from "./embeddings.ts";
import { onError } from "./errors.ts";
import { files } from "./files.ts";
import { refuseForeignPages } from "./foreign_pages.ts";
import { commonHeaders } from "./headers.ts";
import { loads } from "./loads/loads.ts";
import { models } from "./models.ts";
import { serveDocument } from "./openapi.ts";
import { operations } from "./operations.ts";
import { readJsonBody } from "./bounded_json.ts";
import { limitRate } from "./rate_limits.ts";
import { countRequests } from "./request_counter.ts";
import { responses } from "./responses/responses.ts";
import { logRequests } from "./request_log.ts";
import type { Services } from "./services.ts";
import { status } from "./status.ts";
import { tokenize } from "./tokenize.ts";
import { countTraffic } from "./traffic.ts";
import { uploads } from "./uploads.ts";

/** Routes that read their whole body into memory. */
const LIMITED = [
  "/v1/completions",
  "/v1/chat/completions",
  "/v1/classify",
  "/v1/embeddings",
  "/v1/loads",
  "/v1/models/:id",
  "/v1/responses",
  "/v1/uploads",
  "/v1/uploads/:id/complete",
  "/tokenize",
  "/detokenize",
];

/** @param options.allowAnonymous a proxy before the server knows who calls */
export function createApp(
  services: Services,
  { allowAnonymous = false }: { readonly allowAnonymous?: boolean } = {},
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

  app.route("/", operations(services));
  app.route("/", models(services));
  app.route("/", compressions(services));
  app.route("/", files(services));
  app.route("/", uploads(services));
  app.route("/", completions(services));
  app.route("/", chatCompletions(services));
  app.route("/", responses(services));
  app.route("/", classify(services));
  app.route("/", embeddings(services));
  app.route("/", tokenize(services));
  app.route("/", status(services));
  app.route("/", loads(services));
  app.route("/", docs());
  app.route("/", consolePage());
  serveDocument(app, services.version);
  return app;
}
