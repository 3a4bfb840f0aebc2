/**
 * One line of the log for each request, when its answer is sent or its client is gone: id, route, status,
 * seconds, and what its handler adds (model, tokens, an error's code). Never a prompt or an answer.
 */
import { createMiddleware } from "hono/factory";
import { routePath } from "hono/route";
import { log, type LogFields } from "../telemetry/log.ts";
import type { Span } from "../telemetry/telemetry.ts";
import type { AppEnv } from "./app_env.ts";

/** What machines ask every few seconds is not written down. */
const SILENT: ReadonlySet<string> = new Set(["/healthz", "/readyz", "/metrics"]);

/** What is known of a request besides its answer. */
export class RequestRecord {
  readonly fields: LogFields = {};
  span: Span | undefined;
  #working = 0;
  #settle = () => {};

  add(fields: LogFields): void {
    Object.assign(this.fields, fields);
  }
  /** The line waits for work that outlives the handler, as a stream does. @returns what ends it */
  begin(): (fields: LogFields, span: Span) => void {
    this.#working++;
    return (fields, span) => {
      this.add(fields);
      this.span = span;
      if (--this.#working === 0) this.#settle();
    };
  }
  settled(): Promise<void> {
    return new Promise((done) => {
      this.#settle = done;
      if (this.#working === 0) done();
    });
  }
}

export function logRequests() {
  return createMiddleware<AppEnv>(async (c, next) => {
    const start = performance.now();
    const record = new RequestRecord();
    c.set("record", record);
    await next();
    const { method } = c.req, { status } = c.res, route = routePath(c, -1);
    const end = async (left: boolean) => {
      const seconds = (performance.now() - start) / 1000;
      await record.settled();
      if (left) record.fields.error ??= "client_left";
      const { error } = record.fields;
      if (SILENT.has(c.req.path)) return;
      log(error === undefined ? "info" : "warn", "request", {
        request_id: c.get("requestId"),
        method,
        route,
        status,
        seconds: Number(seconds.toFixed(4)),
        ...record.fields,
      }, record.span);
    };
    // Tests may call the app without a server.
    (c.env?.completed ?? Promise.resolve()).then(() => end(false), () => end(true));
  });
}
