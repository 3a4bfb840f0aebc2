/**
 * Speed of the engine on one model: prefill, decode alone and side by side, time to first token, memory; with peers,
 * all contenders run turn by turn (A B A B ...) in one session and the ratios are of medians, because a machine's speed
 * drifts between runs.
 */
import { openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { type Engine, type GenerateRequest, GREEDY } from "../engine/types.ts";
import { startLlamaCpp } from "./_llama_cpp.ts";

export interface BenchEngineOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly streams: number;
  readonly repeats: number;
  /** A checkpoint the peers run, null = no peers. */
  readonly peerModel: string | null;
  readonly onProgress?: (done: number, total: number, what: string) => void;
  readonly onSkip?: (message: string) => void;
}

export interface Speed {
  readonly prefill_tokens_per_second: number;
  readonly decode_tokens_per_second: number;
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

/** Something that can be timed; answers in tokens per second. */
export interface Contender {
  readonly name: string;
  readonly format: string;
  prefill(tokens: number): Promise<number>;
  decode(tokens: number): Promise<number>;
  close(): Promise<void>;
}

/** What a decode starts from: long enough to be text, short enough that attention costs nothing. */
const DECODE_PROMPT = 8;

/** Prompts that no prefix cache knows: a new sequence of ids each time. */
class Prompts {
  #seed = 1;
  constructor(readonly vocabSize: number) {}
  next(length: number): number[] {
    return Array.from({ length }, () => {
      this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
      return 3 + this.#seed % (this.vocabSize - 3);
    });
  }
}

class OwnEngine implements Contender {
  readonly #prompts: Prompts;
  constructor(readonly name: string, readonly format: string, readonly engine: Engine) {
    this.#prompts = new Prompts(engine.vocabSize);
  }
  #request(promptTokens: number, maxTokens: number): GenerateRequest {
    return {
      promptIds: this.#prompts.next(promptTokens),
      maxTokens,
      stopIds: [],
      sampling: GREEDY,
      logprobs: null,
    };
  }
  async prefill(tokens: number): Promise<number> {
    const { prefillMs } = await this.#timings(this.#request(tokens, 1));
    return tokens * 1000 / prefillMs;
  }
  async decode(tokens: number): Promise<number> {
    const { decodeMs, completionTokens } = await this.#timings(this.#request(DECODE_PROMPT, tokens));
    return (completionTokens - 1) * 1000 / decodeMs;
  }
  async firstTokenMs(promptTokens: number): Promise<number> {
    const start = performance.now();
    for await (const event of this.engine.generate(this.#request(promptTokens, 1))) {
      if (event.type === "token") return performance.now() - start;
    }
    throw new RangeError("The engine made no token");
  }
  /** Tokens per second of all streams together. */
  async streams(count: number, tokens: number): Promise<number> {
    const start = performance.now();
    const requests = Array.from({ length: count }, () => this.#request(DECODE_PROMPT, tokens));
    await Promise.all(requests.map((r) => this.#timings(r)));
    return count * tokens * 1000 / (performance.now() - start);
  }
  async #timings(request: GenerateRequest) {
    for await (const event of this.engine.generate(request)) if (event.type === "end") return event.timings;
    throw new RangeError("The generation had no end");
  }
  close(): Promise<void> {
    return this.engine.close();
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

async function openOwn(path: string, name: string, options: OpenModelOptions): Promise<OwnEngine> {
  const model = await openModel(path, options);
  const { recipe } = model.header ?? {};
  const format = recipe ? `${recipe.method} ${recipe.rate} ${recipe.values}` : `dense ${options.values}`;
  return new OwnEngine(name, format, model.engine);
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

/** One round warms up and is not counted. */
async function takeTurns(contenders: readonly Contender[], options: BenchEngineOptions): Promise<Speed[]> {
  const { promptTokens, decodeTokens, repeats, onProgress } = options;
  const samples = contenders.map(() => ({ prefill: [] as number[], decode: [] as number[] }));
  const total = (repeats + 1) * contenders.length;
  let done = 0;
  for (let round = 0; round <= repeats; round++) {
    for (const [i, contender] of contenders.entries()) {
      const prefill = await contender.prefill(promptTokens);
      const decode = await contender.decode(decodeTokens);
      if (round > 0) {
        samples[i].prefill.push(prefill);
        samples[i].decode.push(decode);
      }
      onProgress?.(++done, total, `${contender.name} ${contender.format}`);
    }
  }
  return samples.map((s) => ({
    prefill_tokens_per_second: median(s.prefill),
    decode_tokens_per_second: median(s.decode),
  }));
}

async function measureAlone(own: OwnEngine, options: BenchEngineOptions) {
  const firstToken: number[] = [], streams: number[] = [];
  for (let i = 0; i < options.repeats; i++) {
    firstToken.push(await own.firstTokenMs(options.promptTokens));
    streams.push(await own.streams(options.streams, options.decodeTokens));
  }
  return { streams_tokens_per_second: median(streams), time_to_first_token_ms: median(firstToken) };
}
