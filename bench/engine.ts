/**
 * Speed of the engine on one model: prefill, decode alone and side by side, time to first token, memory; with peers, all
 * contenders take turns in one session, and ratios are medians of the rounds' ratios.
 */
import type { OpenModelOptions } from "../engine/open_model.ts";
import { type PeerContext, PeerFiles } from "./_peer_context.ts";
import { type Contender, DECODE_PROMPT } from "./contender.ts";
import { type Figures, ratios, summarise, type Summary } from "./figures.ts";
import { openOwn, type OwnEngine } from "./own_engine.ts";
import type { PeerName } from "./peer_names.ts";
import { openPeers } from "./peers.ts";
import { median, type Spread, spread } from "./spread.ts";
import { takeTurns, type TurnOptions, type Work } from "./take_turns.ts";

export interface BenchEngineOptions
  extends Pick<OpenModelOptions, "values" | "threads" | "kvFormat" | "tuning">, TurnOptions {
  readonly peers: readonly PeerName[];
  /** The checkpoint the peers run; needed when there are any. */
  readonly peerModel: string | null;
  readonly onSkip?: (message: string) => void;
}

/** Medians. */
export interface Speed {
  readonly prefill_tokens_per_second: number;
  readonly decode_tokens_per_second: number;
  /** Of all streams together. */
  readonly streams_tokens_per_second: number;
}
export interface PeerReport extends Speed {
  readonly name: string;
  readonly format: string;
  readonly spread: Readonly<Record<Work, Spread>>;
  /** This model's speed divided by the peer's, of the same round: medians. */
  readonly ratio: Figures<Work>;
  readonly ratio_spread: Readonly<Record<Work, Spread>>;
}
export interface BenchEngineReport extends Speed {
  readonly model: string;
  readonly format: string;
  readonly threads: number;
  readonly prompt_tokens: number;
  readonly decode_tokens: number;
  readonly streams: number;
  readonly repeats: number;
  readonly spread: Readonly<Record<Work | "time_to_first_token", Spread>>;
  /** All streams together over one alone, of the same round. */
  readonly streams_over_decode: { readonly median: number; readonly spread: Spread };
  readonly time_to_first_token_ms: number;
  readonly rss_bytes: number;
  readonly peers: readonly PeerReport[];
  /** Peers that were asked for and could not run, and why. */
  readonly skipped: readonly string[];
}

const speedOf = ({ median }: Summary<Work>): Speed => ({
  prefill_tokens_per_second: median.prefill,
  decode_tokens_per_second: median.decode,
  streams_tokens_per_second: median.streams,
});

export async function benchEngine(path: string, wanted: BenchEngineOptions): Promise<BenchEngineReport> {
  const { values, threads, kvFormat, tuning, streams, repeats, peerModel } = wanted;
  const own = await openOwn(path, "oatmill", {
    values,
    threads,
    kvFormat,
    tuning,
    maxSequences: Math.max(1, streams),
  });
  const contenders: Contender[] = [own];
  const options = withinContext(wanted, own.engine.contextLength);
  const skipped: string[] = [];
  const onSkip = (message: string) => {
    skipped.push(message);
    wanted.onSkip?.(message);
  };
  await using files = new PeerFiles(peerModel ?? path);
  try {
    // Before the peers come, whose weights are not this model's memory.
    await own.prefill(options.promptTokens);
    const rss = Deno.memoryUsage().rss;
    if (peerModel !== null) {
      contenders.push(...await openPeers(wanted.peers, peerContext(peerModel, own, options, files), onSkip));
    }
    const [mine, ...others] = await takeTurns(contenders, options);
    const firstToken = await measureFirstToken(own, options);
    const summary = summarise(mine);
    const gain = mine.map((round) => round.streams / round.decode);
    return {
      model: path,
      format: own.format,
      threads: own.engine.stats().threads,
      prompt_tokens: options.promptTokens,
      decode_tokens: options.decodeTokens,
      streams,
      repeats,
      ...speedOf(summary),
      time_to_first_token_ms: median(firstToken),
      spread: { ...summary.spread, time_to_first_token: spread(firstToken) },
      streams_over_decode: { median: median(gain), spread: spread(gain) },
      rss_bytes: rss,
      peers: others.map((rounds, i) => peerReport(contenders[i + 1], mine, rounds)),
      skipped,
    };
  } finally {
    await Promise.all(contenders.map((c) => c.close()));
  }
}

/** Prompts and decodes as long as the model's context window allows. */
export function withinContext<T extends TurnOptions>(options: T, contextLength: number): T {
  return {
    ...options,
    promptTokens: Math.min(options.promptTokens, contextLength - 1),
    decodeTokens: Math.min(options.decodeTokens, contextLength - DECODE_PROMPT),
  };
}

function peerContext(
  path: string,
  own: OwnEngine,
  options: BenchEngineOptions,
  files: PeerFiles,
): PeerContext {
  const { promptTokens, decodeTokens, streams, kvFormat, tuning } = options;
  const contextLength = Math.max(promptTokens + 1, DECODE_PROMPT + decodeTokens);
  const kvTokens = Math.max(contextLength, streams * (DECODE_PROMPT + decodeTokens));
  const { threads } = own.engine.stats();
  return { path, threads, kvFormat, tuning, streams, contextLength, kvTokens, files };
}

function peerReport(
  { name, format }: Contender,
  mine: readonly Figures<Work>[],
  rounds: readonly Figures<Work>[],
): PeerReport {
  const summary = summarise(rounds), ratio = ratios(mine, rounds);
  return {
    name,
    format,
    ...speedOf(summary),
    spread: summary.spread,
    ratio: ratio.median,
    ratio_spread: ratio.spread,
  };
}

async function measureFirstToken(own: OwnEngine, options: TurnOptions): Promise<number[]> {
  const ms: number[] = [];
  for (let i = 0; i < options.repeats; i++) ms.push(await own.firstTokenMs(options.promptTokens));
  return ms;
}
