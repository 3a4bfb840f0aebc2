/** What a reader must know before he believes a load's numbers. */
import type { LatencyStats } from "./histogram.ts";

/** Above this a request's latency says more of the client than a service level can bear. */
const MOST_LAG_P99_MS = 10;
/** Of a core: JavaScript has one, and what waits for it is measured as the server's. */
const MOST_CPU_SHARE = 0.8;
const FEW_REQUESTS = 100;

interface Judged {
  readonly client: { readonly schedule_lag_ms: LatencyStats | null; readonly cpu_share: number | null };
  readonly load: { readonly kind: "open"; readonly maxInFlight: number } | { readonly kind: "closed" };
  readonly held_back: number;
  readonly requests: number;
  readonly errors: number;
  readonly errors_by_kind: Readonly<Record<string, { readonly count: number; readonly message: string }>>;
  readonly tokens_counted_by: string;
  readonly interrupted: boolean;
  readonly unfinished: number;
}

type Check = (summary: Judged) => string | null | false;

const CHECKS: readonly Check[] = [
  ({ interrupted, requests, unfinished }) =>
    interrupted && `Ended early: ${requests} requests had ended, ${unfinished} were cut off`,
  ({ requests, errors, errors_by_kind }) => {
    const [worst] = Object.entries(errors_by_kind).toSorted(([, a], [, b]) => b.count - a.count);
    return errors > 0 &&
      `${errors} of ${requests} requests failed, ${worst[1].count} by ${worst[0]}: ${worst[1].message}`;
  },
  ({ requests }) =>
    requests > 0 && requests < FEW_REQUESTS &&
    `${requests} requests are few: their 99th percentile is the slowest of them`,
  ({ client: { schedule_lag_ms: lag } }) =>
    lag !== null && lag.p99 > MOST_LAG_P99_MS &&
    `The client sent late: 1 % of the requests by ${
      lag.p99.toFixed(1)
    } ms or more; use a lower rate or another machine`,
  ({ client: { cpu_share } }) =>
    cpu_share !== null && cpu_share > MOST_CPU_SHARE &&
    `The client used ${
      Math.round(100 * cpu_share)
    } % of a core: it may be what is measured; use several machines`,
  ({ held_back, load }) =>
    held_back > 0 && load.kind === "open" &&
    `${held_back} requests waited on the client's side, ${load.maxInFlight} being under way (--max-in-flight); their latency counts from when they were due`,
  ({ tokens_counted_by }) =>
    tokens_counted_by !== "usage" &&
    "The server gave no usage: output tokens are pieces of its streams, each of which may hold several",
];

export function loadWarnings(summary: Judged): string[] {
  return CHECKS.map((check) => check(summary)).filter((text) => typeof text === "string");
}
