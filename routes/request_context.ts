/** The request under way, for what is far from its handler: log lines, accounts. */
import { tryGetContext } from "hono/context-storage";
import type { AppEnv } from "./app_env.ts";
import type { Account } from "./rate_limits.ts";
import type { RequestRecord } from "./request_log.ts";

/** Undefined outside of a request: jobs, the end of a stream. */
export const currentRequestId = (): string | undefined => tryGetContext<AppEnv>()?.get("requestId");
export const currentRecord = (): RequestRecord | undefined => tryGetContext<AppEnv>()?.get("record");
export const currentAccount = (): Account | undefined => tryGetContext<AppEnv>()?.get("account");
