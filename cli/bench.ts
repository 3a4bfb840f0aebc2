/** `bench engine`. */
import { join } from "node:path";
import { benchEngine, type BenchEngineReport, type Speed } from "../bench/engine.ts";
import { type PeerName, PEERS } from "../bench/peer_names.ts";
import type { Spread } from "../bench/spread.ts";
import type { OpenModelOptions } from "../engine/open_model.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import { OatmillError } from "../errors.ts";
import { isArtifact } from "../models/formats/artifact.ts";
import { SOURCE_NOTE } from "./source_note.ts";
import { megabytes, note, printResult, ProgressBar, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface BenchEngineCommandOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly autotune?: boolean;
  readonly peer?: boolean;
  /** Of --peers: only these. */
  readonly peers?: readonly PeerName[];
  readonly peerModel?: string;
  readonly promptTokens?: number;
  readonly decodeTokens: number;
  readonly streams: number;
  readonly kv?: KvFormat;
  readonly repeats: number;
  readonly json?: boolean;
}

export async function benchEngineCommand(path: string, options: BenchEngineCommandOptions): Promise<void> {
  const withPeers = options.peer || options.peers || options.peerModel;
  const peerModel = withPeers ? await findPeerModel(path, options.peerModel) : null;
  const bar = new ProgressBar();
  const report = await benchEngine(path, {
    ...options,
    tuning: tuningOf(options),
    values: options.values ?? "f32",
    kvFormat: options.kv,
    promptTokens: options.promptTokens ?? 512,
    peers: options.peers ?? PEERS,
    peerModel,
    onProgress: (done, total, what) => bar.show({ phase: what, done, total }),
    onSkip: note,
  });
  bar.end();
  printResult(report, { json: options.json, lines: () => engineLines(report) });
}

/** What an artifact was made from, as `compress` noted it; a checkpoint is its own peer. */
async function findPeerModel(path: string, given: string | undefined): Promise<string> {
  if (given !== undefined) return given;
  if (!await isArtifact(path)) return path;
  try {
    return await Deno.readTextFile(join(path, SOURCE_NOTE));
  } catch {
    throw new OatmillError(
      "invalid_request",
      `Cannot tell what "${path}" was made from: name it with --peer-model`,
    );
  }
}

const WORK = ["prefill", "decode", "streams"] as const;

function engineLines(r: BenchEngineReport): string[] {
  const speeds = (s: Speed) => WORK.map((work) => s[`${work}_tokens_per_second`]);
  return [
    ...table([
      ["tokens/s", "format", ...WORK, ...WORK.map((work) => `${work} ratio`)],
      ["oatmill", r.format, ...speeds(r), ...WORK.map(() => null)],
      ...r.peers.map((p) => [
        p.name,
        p.format,
        ...speeds(p),
        ...WORK.map((work) => `${p.ratio[work].toFixed(2)} (${range(p.ratio_spread[work])})`),
      ]),
    ]),
    "",
    `medians of ${r.repeats} rounds, ratios of the rounds' ratios (middle half); ${r.streams} streams are ${
      r.streams_over_decode.median.toFixed(2)
    } times one; first token of ${r.prompt_tokens} after ${
      r.time_to_first_token_ms.toFixed(1)
    } ms; ${r.threads} threads; ${megabytes(r.rss_bytes)} resident`,
  ];
}
export const range = ({ q1, q3 }: Spread): string => `${q1.toFixed(2)} to ${q3.toFixed(2)}`;
