/** A server without API keys is for this machine alone. */
import { OatmillError } from "../errors.ts";

export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);

/** @throws {OatmillError} invalid_request when others could reach a server that asks nobody for a key */
export function refuseOpenServer(
  host: string,
  { keys, allowAnonymous }: { readonly keys: boolean; readonly allowAnonymous: boolean },
): void {
  if (keys || allowAnonymous || isLoopback(host)) return;
  throw new OatmillError(
    "invalid_request",
    `Cannot listen on ${host} without API keys: whoever reaches it could run and delete models. Set ` +
      `OATMILL_API_KEYS, make a key with "deno task oatmill keys add NAME", listen on 127.0.0.1, or, behind a proxy that ` +
      `knows its callers, pass --allow-anonymous`,
  );
}
