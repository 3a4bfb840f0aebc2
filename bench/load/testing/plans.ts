/** Plans of short loads. Tests only. */
import type { ArrivalOptions } from "../arrivals.ts";
import type { LoadPlan, OpenLoad } from "../load.ts";

export function openLoad(arrivals: Partial<ArrivalOptions> = {}, maxInFlight = 64): OpenLoad {
  const ramp = { from: 1, seconds: 1 };
  return {
    kind: "open",
    arrivals: { kind: "constant", rate: 100, burstiness: 1, ramp, ...arrivals },
    maxInFlight,
  };
}

export function plan(baseUrl: string, options: Partial<LoadPlan> = {}): LoadPlan {
  return {
    target: { baseUrl, endpoint: "completions", model: "stub", timeoutMs: 20_000 },
    load: { kind: "closed", concurrency: 1 },
    limit: { requests: 10, seconds: Infinity },
    warmup: null,
    slo: {},
    seed: 1,
    prompts: { next: () => ({ prompt: "Hello", outputTokens: 4 }) },
    ...options,
  };
}
