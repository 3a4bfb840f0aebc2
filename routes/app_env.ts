/** What the middlewares of app.ts find out about a request. */
import type { Caller } from "./api_keys.ts";
import type { Account } from "./rate_limits.ts";
import type { RequestRecord } from "./request_log.ts";
import type { Scope } from "./scopes.ts";

export interface AppEnv {
  /** What Deno.serve says of the request. */
  Bindings: Deno.ServeHandlerInfo<Deno.NetAddr>;
  Variables: {
    requestId: string;
    /** For its line in the log. */
    record: RequestRecord;
    /** What its route needs of an API key; null: nothing. */
    scope: Scope | null;
    /** Undefined when nobody had to say who he is. */
    caller: Caller | undefined;
    /** Who pays for the tokens; undefined where nothing is limited. */
    account: Account | undefined;
  };
}
