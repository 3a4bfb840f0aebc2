/**
 * Speed of the engine on one model: prefill, decode alone and side by side, time to first token, memory; with peers,
 * all contenders run turn by turn (A B A B ...) in one session and the ratios are of medians, because a machine's speed
 * drifts between runs.
 */
import type { OpenModelOptions } from "../engine/open_model.ts";
import { startLlamaCpp } from "./_llama_cpp.ts";
import { type Contender, DECODE_PROMPT } from "./contender.ts";
import { openOwn, type OwnEngine } from "./own_engine.ts";
import { median } from "./spread.ts";
import { type Speed, takeTurns, type TurnOptions } from "./take_turns.ts";

export interface BenchEngineOptions extends Pick<OpenModelOptions, "values" | "threads">, TurnOptions {
  readonly streams: number;
  /** A checkpoint the peers run, null = no peers. */
  readonly peerModel: string | null;
  readonly onSkip?: (message: string) => void;
}

export interface PeerReport extends Speed {
  readonly name: string;
  readonly format: string;
  /** This model's speed divided by the peer's. */
  readonly ratio: { readonly prefill: number; readonly decode: number };
}
export interface BenchEngineReport extends Speed {
  readonly model: string;
  readonly format: string;
  readonly threads: number;
  readonly prompt_tokens: number;
  readonly decode_tokens: number;
  readonly streams: number;
  readonly streams_tokens_per_second: number;
  readonly time_to_first_token_ms: number;
  readonly rss_bytes: number;
  readonly peers: readonly PeerReport[];
}

async function openPeers(path: string, options: BenchEngineOptions): Promise<Contender[]> {
  const peers: Contender[] = [await openOwn(path, "oatmill", { values: "int8", threads: options.threads })];
  const threads = options.threads ?? navigator.hardwareConcurrency;
  const llamaCpp = await startLlamaCpp(path, { threads, onSkip: options.onSkip });
  return llamaCpp ? [...peers, llamaCpp] : peers;
}

export async function benchEngine(path: string, options: BenchEngineOptions): Promise<BenchEngineReport> {
  const own = await openOwn(path, "oatmill", { values: options.values, threads: options.threads });
  const { contextLength } = own.engine;
  const promptTokens = Math.min(options.promptTokens, contextLength - 1);
  const decodeTokens = Math.min(options.decodeTokens, contextLength - DECODE_PROMPT);
  const contenders: Contender[] = [own];
  try {
    // Before the peers come, whose weights are not this model's memory.
    await own.prefill(promptTokens);
    const rss = Deno.memoryUsage().rss;
    if (options.peerModel !== null) contenders.push(...await openPeers(options.peerModel, options));
    const speeds = await takeTurns(contenders, { ...options, promptTokens, decodeTokens });
    const alone = await measureAlone(own, { ...options, promptTokens, decodeTokens });
    const [mine, ...others] = speeds;
    return {
      model: path,
      format: own.format,
      threads: own.engine.stats().threads,
      prompt_tokens: promptTokens,
      decode_tokens: decodeTokens,
      ...mine,
      streams: options.streams,
      ...alone,
      rss_bytes: rss,
      peers: others.map((speed, i) => ({
        name: contenders[i + 1].name,
        format: contenders[i + 1].format,
        ...speed,
        ratio: {
          prefill: mine.prefill_tokens_per_second / speed.prefill_tokens_per_second,
          decode: mine.decode_tokens_per_second / speed.decode_tokens_per_second,
        },
      })),
    };
  } finally {
    await Promise.all(contenders.map((c) => c.close()));
  }
}

async function measureAlone(own: OwnEngine, options: BenchEngineOptions) {
  const firstToken: number[] = [], streams: number[] = [];
  for (let i = 0; i < options.repeats; i++) {
    firstToken.push(await own.firstTokenMs(options.promptTokens));
    streams.push(await own.streams(options.streams, options.decodeTokens));
  }
  return { streams_tokens_per_second: median(streams), time_to_first_token_ms: median(firstToken) };
}
