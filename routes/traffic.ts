/**
 * The requests under way, and whether the server takes more: what a shutdown waits for. A server that leaves answers
 * until the last of them has ended, so that who comes meanwhile hears a 503 and not a broken connection.
 */
import { createMiddleware } from "hono/factory";
import { OatmillError } from "../errors.ts";
import type { AppEnv } from "./app_env.ts";

/** What load balancers and operators ask also of a server that leaves. */
const ALWAYS_ANSWERED: ReadonlySet<string> = new Set(["/healthz", "/readyz", "/metrics"]);

export class Traffic {
  readonly #leaving = new AbortController();
  #open = 0;
  #waiting: (() => void)[] = [];

  /** Requests whose answers are not sent to their end. Those that a leaving server refuses do not count. */
  get open(): number {
    return this.#open;
  }
  /** Aborted when the server begins to leave: what would go on for ever ends then. */
  get leaving(): AbortSignal {
    return this.#leaving.signal;
  }
  /** From now on new requests are refused. */
  leave(): void {
    this.#leaving.abort();
  }
  /** Resolves when no request is under way. */
  idle(): Promise<void> {
    return new Promise((done) => {
      if (this.#open === 0) done();
      else this.#waiting.push(done);
    });
  }

  /** @param completed settles when the answer is sent or its client is gone */
  async track(completed: Promise<void>): Promise<void> {
    this.#open++;
    await completed.catch(() => {}); // gone
    if (--this.#open === 0) this.#waiting.splice(0).forEach((done) => done());
  }
}

export const leavingError = () =>
  new OatmillError("unavailable", "The server is shutting down: try again, another one takes the request");

/** @throws {OatmillError} unavailable while the server leaves */
export function countTraffic(traffic: Traffic) {
  return createMiddleware<AppEnv>(async (c, next) => {
    const { leaving } = traffic;
    if (leaving.aborted && !ALWAYS_ANSWERED.has(c.req.path)) {
      c.header("connection", "close");
      throw leavingError();
    }
    // Tests may call the app without a server.
    if (!leaving.aborted && c.env?.completed) traffic.track(c.env.completed);
    await next();
    if (leaving.aborted) c.header("connection", "close");
  });
}
