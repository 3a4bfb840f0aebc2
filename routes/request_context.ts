/** The request under way, for what is far from its handler: log lines, accounts. */
import { tryGetContext } from "hono/context-storage";
import type { AppEnv } from "./app_env.ts";

/** Undefined outside of a request: jobs, the end of a stream. */
export const currentRequestId = (): string | undefined => tryGetContext<AppEnv>()?.get("requestId");
