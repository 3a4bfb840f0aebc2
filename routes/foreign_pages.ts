/**
 * Keeps web pages of others away from a server without keys: a browser on this machine would carry their requests to
 * it. With keys no page has one to send.
 */
import { createMiddleware } from "hono/factory";
import { OatmillError } from "../errors.ts";
import type { AppEnv } from "./app_env.ts";

export interface ForeignPagesOptions {
  /** Origins whose pages may call. */
  readonly origins: readonly string[];
  /** A proxy answers for who calls, and under which name. */
  readonly allowAnonymous: boolean;
}

/** After requireKey, which knows the caller. */
export function refuseForeignPages({ origins, allowAnonymous }: ForeignPagesOptions) {
  return createMiddleware<AppEnv>(async (c, next) => {
    if (c.get("scope") !== null && c.get("caller") === undefined) {
      const here = new URL(c.req.url), origin = c.req.header("origin");
      if (!allowAnonymous) refuseOtherName(here.hostname);
      const known = origin === undefined || origins.includes(origin) || hostOf(origin) === here.host;
      // What a page reads by GET its browser keeps from it (CORS); forms and uploads are sent without asking us.
      if (!known && c.req.method !== "GET" && c.req.method !== "HEAD") throw foreign(origin);
    }
    await next();
  });
}

/**
 * A page can point its own name at this machine's address (DNS rebinding), and is then of the same origin. No such name
 * is an address or localhost.
 */
function refuseOtherName(name: string): void {
  if (/^(\d+(\.\d+){3}|\[.*\]|(.*\.)?localhost)$/.test(name)) return;
  throw new OatmillError(
    "foreign_origin",
    `Without API keys the server answers to addresses and localhost, not to "${name}": make a key with ` +
      `"deno task oatmill keys add NAME" or, behind a proxy that knows its callers, pass --allow-anonymous`,
  );
}

const foreign = (origin: string): OatmillError =>
  new OatmillError(
    "foreign_origin",
    `Pages of "${origin}" may not call a server without API keys: allow them with --cors-origin`,
  );
const hostOf = (origin: string): string | null => URL.canParse(origin) ? new URL(origin).host : null;
