/** An OTLP/HTTP receiver for tests: keeps what is sent to it. */
import { otlpFromEnv, type OtlpOptions } from "../telemetry/otlp.ts";

// deno-lint-ignore no-explicit-any -- OTLP's JSON, looked into by path
type Json = any;

export class OtlpReceiver implements AsyncDisposable {
  readonly #received = new Map<string, Json[]>();
  readonly #server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      this.#received.set(pathname, [...this.#of(pathname), await request.json()]);
      return Response.json({});
    },
  );

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }
  /** What sends everything here. */
  get options(): OtlpOptions {
    return otlpFromEnv((name) => name === "OTEL_EXPORTER_OTLP_ENDPOINT" ? this.endpoint : undefined)!;
  }
  #of(path: string): Json[] {
    return this.#received.get(path) ?? [];
  }
  spans(): Json[] {
    return this.#of("/v1/traces").flatMap((body) => body.resourceSpans[0].scopeSpans[0].spans);
  }
  metrics(): Json[] {
    return this.#of("/v1/metrics").flatMap((body) => body.resourceMetrics[0].scopeMetrics[0].metrics);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
