/** A recovery as answers and `--json` have it. Light: a server's start loads it. */
import type { Recovery } from "../../models/formats/artifact_header.ts";

export function recoveryBody(recovery: Recovery) {
  const { learningRate, tokensPerSecond, peakRssBytes, ...rest } = recovery;
  return {
    ...rest,
    learning_rate: learningRate,
    tokens_per_second: tokensPerSecond,
    peak_rss_bytes: peakRssBytes,
  };
}
