/** What takes part in a synthetic benchmark: own models as decoders or encoders, and ONNX Runtime. */
import { loadEngine } from "../engine/engine.ts";
import type { TuningOptions } from "../engine/tuning.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import { linearShapes, type ModelSpec } from "../models/spec.ts";
import type { PackedModel } from "../models/packed.ts";
import { OnnxEncoder } from "./_onnx_encoder.ts";
import { DECODE_PROMPT, Prompts } from "./contender.ts";
import type { Figures } from "./figures.ts";
import { OwnEngine } from "./own_engine.ts";

/** Work of one round. */
export interface RoundOptions {
  readonly threads: number;
  /** Of the KV cache; default: the engine's. */
  readonly kvFormat?: KvFormat;
  readonly tuning?: TuningOptions;
  /** Also the length of an encoder's input. */
  readonly promptTokens: number;
  readonly decodeTokens: number;
  /** Where a decode ends; null: as soon as it may. */
  readonly context: number | null;
  readonly streams: number;
}

/** Loaded and ready to be measured. */
export interface Runner {
  /** Everything once, in tokens per second. */
  round(): Promise<Figures>;
  close(): Promise<void>;
}

export interface Entrant {
  /** As in "oats 0.5 int4". */
  readonly name: string;
  /** Bytes of the weights as stored. */
  readonly packedBytes: number;
  open(): Promise<Runner>;
}

/** Forward passes of an encoder in a round: single ones of tens of milliseconds jitter. */
const FORWARDS = 5;

export function ownEntrant(model: PackedModel, options: RoundOptions): Entrant {
  return {
    name: model.name,
    packedBytes: model.tensors.reduce((n, t) => n + t.bytes, 0),
    open: () => model.spec.attention.causal ? openDecoder(model, options) : openEncoder(model, options),
  };
}

async function openDecoder(model: PackedModel, options: RoundOptions): Promise<Runner> {
  const { threads, kvFormat, tuning, promptTokens, decodeTokens, context, streams } = options;
  const contextLength = Math.max(promptTokens + 1, DECODE_PROMPT + decodeTokens, context ?? 0);
  const engine = await loadEngine(model, {
    threads,
    kvFormat,
    tuning,
    // Text that a random model makes soon repeats itself: drafts would come true as they never do.
    speculation: false,
    contextLength,
    maxSequences: Math.max(1, streams),
    kvTokens: contextLength + streams * (DECODE_PROMPT + decodeTokens + 16),
  });
  const own = new OwnEngine("oatmill", model.name, engine);
  return {
    round: async () => ({
      prefill_tokens_per_second: await own.prefill(promptTokens),
      decode_tokens_per_second: await own.decode(
        decodeTokens,
        context === null ? undefined : context - decodeTokens,
      ),
      streams_tokens_per_second: await own.streams(streams, decodeTokens),
    }),
    close: () => own.close(),
  };
}

async function openEncoder(
  model: PackedModel,
  { threads, kvFormat, tuning, promptTokens }: RoundOptions,
): Promise<Runner> {
  const engine = await loadEngine(model, { threads, kvFormat, tuning });
  const prompts = new Prompts(engine.vocabSize);
  return {
    round: () => forwards(promptTokens, () => engine.encode(prompts.next(promptTokens))),
    close: () => engine.close(),
  };
}

/** @param spec of an encoder */
export function onnxEntrant(spec: ModelSpec, { threads, promptTokens }: RoundOptions): Entrant {
  const weights = Object.values(linearShapes(spec)).reduce((n, shape) => n + shape![0] * shape![1], 0);
  return {
    name: "onnxruntime f32",
    packedBytes: 4 * spec.blocks * weights,
    open: async () => {
      const encoder = await OnnxEncoder.open(spec, { tokens: promptTokens, threads });
      return { round: () => forwards(promptTokens, () => encoder.forward()), close: () => encoder.close() };
    },
  };
}

async function forwards(tokens: number, forward: () => Promise<unknown>): Promise<Figures> {
  const start = performance.now();
  for (let i = 0; i < FORWARDS; i++) await forward();
  return { forward_tokens_per_second: FORWARDS * tokens * 1000 / (performance.now() - start) };
}
