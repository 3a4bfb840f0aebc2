/** The whole HTTP surface: every resource, and the document of them all. Loaded at the first request for one of them. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { adapters } from "./adapters.ts";
import type { AppEnv } from "./app_env.ts";
import { type AppOptions, createApp, type Resource } from "./app.ts";
import { classify } from "./classify.ts";
import { compressions } from "./compressions.ts";
import { consolePage } from "./console/console.ts";
import { docs } from "./docs.ts";
import { embeddings } from "./embeddings.ts";
import { files } from "./files.ts";
import { FIRST_RESOURCES } from "./first_resources.ts";
import { loads } from "./loads/loads.ts";
import { models } from "./models.ts";
import { serveDocument } from "./openapi.ts";
import { responses } from "./responses/responses.ts";
import type { Services } from "./services.ts";
import { speeds } from "./speeds/speeds.ts";
import { status } from "./status.ts";
import { tokenize } from "./tokenize.ts";
import { uploads } from "./uploads.ts";

const RESOURCES: readonly Resource[] = [
  ...FIRST_RESOURCES,
  models,
  adapters,
  compressions,
  files,
  uploads,
  responses,
  classify,
  embeddings,
  tokenize,
  status,
  loads,
  speeds,
  docs,
  consolePage,
];

export function createWholeApp(services: Services, options: AppOptions = {}): OpenAPIHono<AppEnv> {
  const app = createApp(services, RESOURCES, options);
  serveDocument(app, services.version);
  return app;
}
