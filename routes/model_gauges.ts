/** What `/metrics` shows of models at the moment it is asked, by name: versions that are loaded at once add up. */
import type { EngineStats } from "../engine/types.ts";
import type { ObservableKey } from "../telemetry/instruments.ts";
import type { Services } from "./services.ts";

const ENGINE_GAUGES: readonly (readonly [ObservableKey, keyof EngineStats])[] = [
  ["requestsRunning", "running"],
  ["requestsWaiting", "waiting"],
  ["batchTokens", "batchTokens"],
  ["steps", "stepsTotal"],
  ["kvBlocksUsed", "kvBlocksUsed"],
  ["kvBlocksTotal", "kvBlocksTotal"],
  ["kvBlocksCached", "kvBlocksCached"],
  ["prefixQueries", "prefixQueries"],
  ["prefixHits", "prefixHits"],
  ["prefixTokens", "prefixTokens"],
  ["draftedTokens", "draftedTokens"],
  ["acceptedTokens", "acceptedTokens"],
  ["modelMemory", "memoryBytes"],
];

export function observeModels(
  { telemetry, registry, notReady }: Pick<Services, "telemetry" | "registry" | "notReady">,
): void {
  const seen = new Set<string>();
  telemetry.observe((report) => {
    report("ready", notReady() === null ? 1 : 0);
    report("processMemory", Deno.memoryUsage().rss);
    for (const { id, info } of registry.list()) {
      const attributes = { "gen_ai.request.model": id };
      report("artifactBytes", info.bytes, attributes);
      report("denseBytes", info.denseBytes, attributes);
      report("sparsity", info.sparsity, attributes);
    }
    const loaded = registry.stats();
    report("modelsLoaded", loaded.length);
    for (const { id } of loaded) seen.add(id);
    for (const id of seen) {
      const engines = loaded.filter((e) => e.id === id);
      for (const [gauge, field] of ENGINE_GAUGES) {
        const sum = engines.reduce((total, { stats }) => total + stats[field], 0);
        report(gauge, sum, { "gen_ai.request.model": id });
      }
    }
  });
}
