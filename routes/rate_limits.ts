/** How much a key (or, without keys, a client's address) may run in a minute: requests, and their tokens. */
import { getConnInfo } from "hono/deno";
import { createMiddleware } from "hono/factory";
import { OatmillError } from "../errors.ts";
import type { AppEnv } from "./app_env.ts";
import { TokenBucket } from "./token_bucket.ts";

/** For each key; undefined: no limit. */
export interface RateLimits {
  readonly requestsPerMinute?: number;
  /** Of prompts and answers together. */
  readonly tokensPerMinute?: number;
}

const KINDS = ["requests", "tokens"] as const;
type Kind = typeof KINDS[number];

/** What one caller has left. */
export class Account {
  readonly #buckets: readonly (readonly [Kind, TokenBucket])[];

  constructor(limits: RateLimits, readonly now: () => number) {
    const perMinute = { requests: limits.requestsPerMinute, tokens: limits.tokensPerMinute };
    this.#buckets = KINDS.flatMap((kind) => {
      const limit = perMinute[kind];
      return limit === undefined ? [] : [[kind, new TokenBucket(limit, now())] as const];
    });
  }
  /**
   * Counts a request. One begins as long as a token is left and pays for all that it used: nobody knows beforehand how
   * long an answer gets, and what was overdrawn delays the next.
   * @throws {OatmillError} rate_limit_exceeded, saying when to come again
   */
  admit(): void {
    const now = this.now();
    for (const [kind, bucket] of this.#buckets) {
      const retryAfterMs = Math.ceil(bucket.waitMs(1, now));
      if (retryAfterMs === 0) continue;
      const message = `More than ${bucket.perMinute} ${kind} a minute: try again in ${
        duration(retryAfterMs)
      }`;
      throw new OatmillError("rate_limit_exceeded", message, null, { retryAfterMs });
    }
    this.#spend("requests", 1);
  }
  /** Tokens as they are used, so that long answers under way hold back new ones. */
  charge(tokens: number): void {
    this.#spend("tokens", tokens);
  }
  #spend(kind: Kind, amount: number): void {
    this.#buckets.find(([k]) => k === kind)?.[1].spend(amount, this.now());
  }
  /** As OpenAI names them: what there is in a minute, what is left of it, and how long until all of it is back. */
  headers(): Record<string, string> {
    const now = this.now();
    return Object.fromEntries(this.#buckets.flatMap(([kind, bucket]) => [
      [`x-ratelimit-limit-${kind}`, String(bucket.perMinute)],
      [`x-ratelimit-remaining-${kind}`, String(Math.max(0, Math.floor(bucket.level(now))))],
      [`x-ratelimit-reset-${kind}`, duration(Math.ceil(bucket.waitMs(bucket.perMinute, now)))],
    ]));
  }
  /** Nothing to remember: a new account would be the same. */
  get idle(): boolean {
    const now = this.now();
    return this.#buckets.every(([, bucket]) => bucket.waitMs(bucket.perMinute, now) === 0);
  }
}

/** Accounts kept before idle ones are looked for: about 2 MB. */
const SWEEP_AT = 10_000;

export class RateLimiter {
  readonly #accounts = new Map<string, Account>();
  #sweepAt = SWEEP_AT;
  constructor(readonly limits: RateLimits, readonly now: () => number = () => performance.now()) {}

  account(id: string): Account {
    const known = this.#accounts.get(id);
    if (known) return known;
    if (this.#accounts.size >= this.#sweepAt) this.#sweep();
    const account = new Account(this.limits, this.now);
    this.#accounts.set(id, account);
    return account;
  }
  #sweep(): void {
    for (const [id, account] of this.#accounts) if (account.idle) this.#accounts.delete(id);
    // Where few are idle, the next sweep waits for as many again: the work stays linear.
    this.#sweepAt = Math.max(SWEEP_AT, 2 * this.#accounts.size);
  }
  get size(): number {
    return this.#accounts.size;
  }
}

/** Limits what runs models; asking what there is, is free. After requireKey, which knows the caller. */
export function limitRate(limiter: RateLimiter) {
  const { requestsPerMinute, tokensPerMinute } = limiter.limits;
  const unlimited = requestsPerMinute === undefined && tokensPerMinute === undefined;
  return createMiddleware<AppEnv>(async (c, next) => {
    if (unlimited || c.get("scope") !== "infer") return await next();
    const account = limiter.account(c.get("caller")?.id ?? getConnInfo(c).remote.address ?? "");
    const showHeaders = () =>
      Object.entries(account.headers()).forEach(([name, value]) => c.header(name, value));
    try {
      account.admit();
    } catch (error) {
      showHeaders();
      throw error;
    }
    c.set("account", account);
    await next();
    showHeaders(); // of a whole answer with its tokens, of a stream as it begins
  });
}

/** As in `20ms`, `7s` or `1m30s`. */
function duration(ms: number): string {
  if (ms < 1000) return `${ms}ms`;
  const seconds = Math.ceil(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}
