/**
 * What the client itself adds: the same load on a stub in another thread of this process. Its first token comes at once, so
 * that the time to it is all the client's, the loopback's and the stub's; its others come at the pace that was measured.
 */
import type { LatencyStats } from "./histogram.ts";
import { type LoadOptions, type LoadPlan, type LoadSummary, runLoad } from "./load.ts";
import type { StubOptions } from "./stub_server.ts";

export interface SelfCheck {
  readonly requests: number;
  readonly errors: number;
  readonly output_tokens_per_second: number;
  /** Added to a time to first token: the stub has none of its own. */
  readonly added_ttft_ms: LatencyStats | null;
  /** Added to a time per output token, beyond the stub's pace. */
  readonly added_tpot_ms: number | null;
  readonly schedule_lag_ms: LatencyStats | null;
  /** Share of one core, client and stub together: at most this is the client's. */
  readonly cpu_share: number | null;
  readonly warnings: readonly string[];
}

/** Long enough for a 99th percentile, short enough to wait for. */
const LIMIT = { requests: 500, seconds: 5 };

/** @param measured the load on the real server; its pace is the stub's */
export async function selfCheck(
  plan: LoadPlan,
  measured: LoadSummary,
  options: LoadOptions = {},
): Promise<SelfCheck> {
  const tokenMs = measured.tpot_ms?.p50 ?? 0;
  await using stub = await StubWorker.start({ firstTokenMs: 0, tokenMs });
  const { requests, seconds } = plan.limit;
  const summary = await runLoad({
    ...plan,
    target: { ...plan.target, baseUrl: stub.baseUrl, model: "stub", apiKey: undefined },
    limit: { requests: Math.min(requests, LIMIT.requests), seconds: Math.min(seconds, LIMIT.seconds) },
    warmup: { requests: Math.max(4, plan.load.kind === "closed" ? plan.load.concurrency : 0), seconds: 1 },
  }, options);
  return {
    requests: summary.requests,
    errors: summary.errors,
    output_tokens_per_second: summary.output_tokens_per_second,
    added_ttft_ms: summary.ttft_ms,
    added_tpot_ms: summary.tpot_ms && Math.max(0, summary.tpot_ms.p50 - tokenMs),
    schedule_lag_ms: summary.client.schedule_lag_ms,
    cpu_share: summary.client.cpu_share,
    warnings: summary.warnings,
  };
}

class StubWorker implements AsyncDisposable {
  private constructor(readonly worker: Worker, readonly baseUrl: string) {}

  static start(options: StubOptions): Promise<StubWorker> {
    const worker = new Worker(import.meta.resolve("./_stub_worker.ts"), { type: "module" });
    return new Promise((done, fail) => {
      worker.onmessage = ({ data }) => done(new StubWorker(worker, `http://127.0.0.1:${data}/v1`));
      worker.onerror = (event) => {
        event.preventDefault();
        worker.terminate();
        fail(new Error(`The stub did not start: ${event.message}`));
      };
      worker.postMessage(options);
    });
  }
  [Symbol.asyncDispose](): Promise<void> {
    this.worker.terminate();
    return Promise.resolve();
  }
}
