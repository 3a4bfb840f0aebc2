/**
 * What the client itself adds: the same load on a stub in a process of its own, so that the processor time of this one is the
 * client's alone. The stub's first token comes at once, so that the time to it is all the client's, the loopback's and the
 * stub's; its others come at the pace that was measured.
 */
import { denoCommand } from "../_own_process.ts";
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
  /** Of the client alone: share of one core, and what a request and a token of its answer take. */
  readonly cpu_share: number | null;
  readonly cpu_us_per_request: number | null;
  readonly cpu_us_per_token: number | null;
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
  await using stub = await StubProcess.start({ firstTokenMs: 0, tokenMs });
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
    ...cpuOf(summary),
    warnings: summary.warnings,
  };
}

function cpuOf(
  { client: { cpu_share, cpu_us_per_token }, requests, output_tokens }: LoadSummary,
): Pick<SelfCheck, "cpu_share" | "cpu_us_per_request" | "cpu_us_per_token"> {
  const perRequest = cpu_us_per_token === null ? null : cpu_us_per_token * output_tokens / requests;
  return { cpu_share, cpu_us_per_request: perRequest, cpu_us_per_token };
}

class StubProcess implements AsyncDisposable {
  private constructor(readonly child: Deno.ChildProcess, readonly baseUrl: string) {}

  /** @throws {Error} with what the process said, when it does not start */
  static async start(options: StubOptions): Promise<StubProcess> {
    const script = import.meta.resolve("./_stub_process.ts");
    const child = new Deno.Command(denoCommand(), {
      args: ["run", "--no-prompt", "--allow-net=127.0.0.1", script, JSON.stringify(options)],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      return new StubProcess(child, `http://127.0.0.1:${Number(text)}/v1`);
    }
    throw new Error(`The stub did not start: it ended with code ${(await child.status).code}`);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.child.stdin.close();
    this.child.kill();
    await this.child.status;
  }
}
