/** Who calls: API keys from the environment and from the store, and the middleware that asks for them. */
import { timingSafeEqual } from "node:crypto";
import { createMiddleware } from "hono/factory";
import { OatmillError } from "../errors.ts";
import { hashKey, type KeyStore } from "../store/key_store.ts";
import type { AppEnv } from "./app_env.ts";
import { mayUse, type Scope, scopeOf } from "./scopes.ts";

export interface Caller {
  /** Public: a stored key's id, or its place in the environment. */
  readonly id: string;
  readonly scopes: readonly string[];
}

/** Shorter ones can be guessed at the rate that a server answers. */
const MIN_LENGTH = 16;

/**
 * The keys of `OATMILL_API_KEYS`, with commas between them; each may do everything.
 * @throws {OatmillError} invalid_request for one that is short or cannot stand in a header; it names the place, not the key
 */
export function parseKeys(text: string | undefined): string[] {
  const keys = (text ?? "").split(",").map((k) => k.trim()).filter((k) => k !== "");
  keys.forEach((key, i) => {
    if (key.length >= MIN_LENGTH && /^[\x21-\x7e]+$/.test(key)) return;
    throw new OatmillError(
      "invalid_request",
      `Key ${i + 1} of OATMILL_API_KEYS needs at least ${MIN_LENGTH} characters, ASCII without spaces; ` +
        `"openssl rand -hex 32" makes one`,
    );
  });
  return keys;
}

export class ApiKeys {
  readonly #store: KeyStore;
  readonly #environment: readonly { readonly caller: Caller; readonly hash: Uint8Array }[];
  #required: boolean;

  constructor(store: KeyStore, environment: readonly string[] = []) {
    this.#store = store;
    this.#environment = environment.map((key, i) => ({
      caller: { id: `environment-${i + 1}`, scopes: ["admin"] },
      hash: hashKey(key),
    }));
    this.#required = environment.length > 0;
  }
  /** Does a request need a key? Once it does it always will: revoking the last key must not open the server. */
  get required(): boolean {
    return this.#required ||= this.#store.any();
  }
  /** In a time that does not depend on how much of a key is right. @returns null for an unknown one */
  find(key: string): Caller | null {
    const hash = hashKey(key);
    let found: Caller | null = null;
    for (const known of this.#environment) if (timingSafeEqual(known.hash, hash)) found = known.caller;
    return found ?? this.#store.find(key);
  }
}

/**
 * Lets a request through whose key has the scope that its route needs; everything while there are no keys.
 * Hono's own bearer-auth answers in another shape, 400 for a malformed header, and knows no scopes.
 */
export function requireKey(keys: ApiKeys) {
  return createMiddleware<AppEnv>(async (c, next) => {
    const scope = scopeOf(c.req.method, c.req.path);
    c.set("scope", scope);
    if (scope !== null && keys.required) {
      c.set("caller", admit(keys, c.req.header("authorization"), scope));
    }
    await next();
  });
}

/** @throws {OatmillError} invalid_api_key, missing_scope */
function admit(keys: ApiKeys, header: string | undefined, scope: Scope): Caller {
  const key = /^Bearer +(\S+)$/i.exec(header ?? "")?.[1];
  if (key === undefined) {
    throw new OatmillError("invalid_api_key", 'An API key is needed: send "Authorization: Bearer KEY"');
  }
  const caller = keys.find(key);
  if (caller === null) {
    throw new OatmillError("invalid_api_key", "Unknown API key: it is misspelt or revoked");
  }
  if (mayUse(caller.scopes, scope)) return caller;
  throw new OatmillError(
    "missing_scope",
    `The API key "${caller.id}" may ${
      caller.scopes.join(" and ")
    }; this needs the scope "${scope}": make one with "deno task oatmill keys add NAME --scopes ${scope}"`,
  );
}
