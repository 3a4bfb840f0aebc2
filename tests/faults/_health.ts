/** How long /healthz takes while a server has other things to do. */
import { fileURLToPath } from "node:url";

/** Health answers may take so long on a machine that others use too; the aim, shown in the notes, is 100 ms. */
export const HEALTH_MS = 5_000;

/** Latencies of /healthz, rising, as another process sees them. */
export function probeHealth(url: string): { stop(): Promise<number[]> } {
  const script = fileURLToPath(new URL("./_health_probe.ts", import.meta.url));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--allow-net=127.0.0.1", script, url],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  return {
    async stop() {
      await child.stdin.close();
      const times: number[] = await new Response(child.stdout).json();
      await child.status;
      return times.sort((a, b) => a - b);
    },
  };
}
export function latencies(rising: readonly number[]): string {
  const at = (share: number) =>
    rising[Math.min(rising.length - 1, Math.floor(share * rising.length))].toFixed(1);
  return `/healthz ms: p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)} (${rising.length} probes)`;
}
