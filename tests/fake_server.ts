/** The HTTP surface over fake engines and a fake compression, on a real port with a real data folder. Tests only. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { LoadTimes } from "../engine/load_times.ts";
import type { OpenedModel } from "../engine/open_model.ts";
import type { CompressResult } from "../compress/types.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { recipeSchema } from "../models/recipe.ts";
import { ApiKeys } from "../routes/api_keys.ts";
import type { RunTask } from "../routes/compress_task.ts";
import { jobNeeding, JobRunner } from "../routes/jobs.ts";
import { LoadRunner } from "../routes/loads/load_runner.ts";
import type { MeasureSpeed } from "../routes/speeds/measure_speed.ts";
import { SpeedRunner } from "../routes/speeds/speed_runner.ts";
import { RateLimiter } from "../routes/rate_limits.ts";
import { ModelRegistry } from "../routes/registry.ts";
import { requestHandler } from "../routes/request_handler.ts";
import { Traffic } from "../routes/traffic.ts";
import { DEFAULT_LIMITS, type Limits, type Services } from "../routes/services.ts";
import { AdapterStore } from "../store/adapter_store.ts";
import { DataFolder } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { JobStore } from "../store/job_store.ts";
import { KeyStore } from "../store/key_store.ts";
import { LoadStore } from "../store/load_store.ts";
import { SpeedStore } from "../store/speed_store.ts";
import { ModelStore } from "../store/model_store.ts";
import { openStorage } from "../store/storage.ts";
import { setLogSink } from "../telemetry/log.ts";
import { Telemetry } from "../telemetry/telemetry.ts";
import { ImageReader } from "../vision/image_reader.ts";
import { byteTokenizer, EOS, FakeEngine, type FakeEngineOptions } from "./fake_engine.ts";

export interface FakeServerOptions {
  readonly engine?: FakeEngineOptions;
  readonly tokenizer?: Partial<OpenedModel["tokenizer"]> | null;
  readonly run?: RunTask;
  readonly measure?: MeasureSpeed;
  readonly limits?: Partial<Limits>;
  readonly maxLoaded?: number;
  readonly idleMs?: number;
  readonly keepVersions?: number;
  /** Of the environment. */
  readonly apiKeys?: readonly string[];
  readonly corsOrigins?: readonly string[];
  readonly allowAnonymous?: boolean;
  readonly rates?: RateLimiter;
  /** The clock by which uploads expire. */
  readonly monotonicMs?: () => number;
  /** What the fake model is besides. */
  readonly encoder?: OpenedModel["encoder"];
  /** Opens this in place of a model with a fake engine. */
  readonly open?: () => Promise<OpenedModel>;
}

export class FakeServer implements AsyncDisposable {
  readonly engines: FakeEngine[] = [];
  readonly logs: string[] = [];
  /** Thrown where a model would be opened, while it is set and the condition holds. */
  failLoads: Error | null = null;
  failLoadsWhile = () => true;

  private constructor(
    readonly url: string,
    readonly services: Services,
    readonly keys: KeyStore,
    readonly models: ModelStore,
    readonly stop: () => Promise<void>,
  ) {}

  static async start(options: FakeServerOptions = {}): Promise<FakeServer> {
    const root = await Deno.makeTempDir();
    const data = await DataFolder.open(root);
    const database = openDatabase(data.database);
    const telemetry = await Telemetry.open({ version: "test", otlp: null });
    const open = () =>
      self.failLoads && self.failLoadsWhile()
        ? Promise.reject(self.failLoads)
        : options.open?.() ?? Promise.resolve(self.#open(options));
    const models = new ModelStore(database), adapters = new AdapterStore(database);
    const { maxLoaded = 4, idleMs = 0, keepVersions = 3 } = options;
    const registry = new ModelRegistry({
      data,
      models,
      adapters,
      open,
      maxLoaded,
      idleMs,
      keepVersions,
      telemetry,
    });
    const hub = { url: "http://hub.test", token: "hf_test" };
    const jobStore = new JobStore(database);
    const jobs = new JobRunner({
      jobs: jobStore,
      data,
      registry,
      telemetry,
      hub,
      run: options.run ?? fakeRun,
    });
    const keys = new KeyStore(database);
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    const storage = await openStorage({
      database,
      data,
      quotaBytes: limits.storageBytes,
      neededBy: (file) => jobNeeding(jobStore, file),
      onDamage: ({ id }, damage) => self.logs.push(`${id}: ${damage}`),
      onLostPart: (part) => self.logs.push(part),
      monotonicMs: options.monotonicMs,
    });
    const services: Services = {
      version: "test",
      telemetry,
      data,
      registry,
      jobs,
      storage,
      limits,
      images: new ImageReader(),
      keys: new ApiKeys(keys, options.apiKeys),
      rates: options.rates ?? new RateLimiter({}),
      traffic: new Traffic(),
      corsOrigins: options.corsOrigins ?? [],
      hub,
      loads: new LoadRunner(new LoadStore(database)),
      speeds: new SpeedRunner({ store: new SpeedStore(database), measure: options.measure ?? fakeMeasure }),
      address: () => self.url,
      notReady: () => null,
    };
    const http = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      requestHandler(services, options),
    );
    const self = new FakeServer(`http://127.0.0.1:${http.addr.port}`, services, keys, models, async () => {
      await jobs.close();
      services.loads[Symbol.dispose]();
      services.speeds[Symbol.dispose]();
      await http.shutdown();
      services.images.close();
      storage.uploads[Symbol.dispose]();
      await registry.close();
      await telemetry.close();
      database.close();
      data[Symbol.dispose]();
      setLogSink(formerSink);
      await Deno.remove(root, { recursive: true });
    });
    const formerSink = setLogSink((line) => self.logs.push(line));
    await self.addModel("fake");
    return self;
  }
  #open(options: FakeServerOptions): OpenedModel {
    const engine = new FakeEngine(options.engine);
    this.engines.push(engine);
    const spec = { ...fakeHeader("fake").spec, eosIds: [EOS] };
    const tokenizer = options.tokenizer === null ? null : { ...byteTokenizer, ...options.tokenizer };
    return {
      name: "fake",
      spec,
      engine,
      tokenizer,
      encoder: options.encoder ?? null,
      header: null,
      times: new LoadTimes(),
    };
  }

  /** @returns the version, another for other weights */
  async addModel(id: string, weights = "weights"): Promise<string> {
    const folder = await this.services.data.temporary();
    const header = fakeHeader(id, weights);
    await Deno.writeTextFile(join(folder, "oatmill.json"), JSON.stringify(header));
    await Deno.writeTextFile(join(folder, "model.safetensors"), weights);
    return await this.services.registry.add(id, folder, header);
  }
  get(path: string, init?: RequestInit): Promise<Response> {
    return fetch(this.url + path, init);
  }
  post(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    const headers = { "content-type": "application/json", ...init.headers };
    return this.get(path, {
      method: "POST",
      ...init,
      headers,
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Data of a whole event stream, parsed; the closing [DONE] stays a string. */
export async function readEvents(response: Response): Promise<unknown[]> {
  return (await response.text()).split("\n\n").filter(Boolean).map((event) => {
    const data = event.split("\n").find((line) => line.startsWith("data: "))!.slice(6);
    return data === "[DONE]" ? data : JSON.parse(data);
  });
}

export const fakeRun: RunTask = async (task, { onProgress }) => {
  onProgress({ phase: "compress", done: 1, total: 1 });
  await Deno.mkdir(task.out);
  await Deno.writeTextFile(join(task.out, "oatmill.json"), "{}");
  return fakeResult(task.name, task.out);
};
export const fakeMeasure: MeasureSpeed = () =>
  Promise.resolve({
    threads: 2,
    promptTokens: 16,
    decodeTokens: 4,
    streams: 2,
    stored: { prefill: 300, decode: 60, streams: 120 },
    dense: { prefill: 300, decode: 40, streams: 100 },
    ratio: { prefill: 1, decode: 1.5, streams: 1.2 },
  });
export const fakeResult = (name: string, artifact: string, weights?: string): CompressResult => ({
  artifact,
  header: fakeHeader(name, weights),
  seconds: 1,
  peakRssBytes: 1,
  phases: {},
});
export function fakeHeader(name: string, weights = "weights"): ArtifactHeader {
  return {
    format: 1,
    oatmill: "test",
    created: "2026-01-01T00:00:00Z",
    name,
    spec: {
      family: "llama",
      architecture: "LlamaForCausalLM",
      vocabSize: 258,
      hiddenSize: 8,
      blocks: 1,
      contextLength: 512,
      norm: { kind: "rmsnorm", eps: 1e-5 },
      attention: { heads: 1, kvHeads: 1, headDim: 8, causal: true, scale: 1, window: null, rope: null },
      mlp: { intermediateSize: 8, activation: "silu", gated: true },
      tiedEmbeddings: true,
      biases: [],
      bosId: 256,
      eosIds: [EOS],
    },
    recipe: recipeSchema.parse({}),
    source: { file: "x", format: "safetensors", tensorBytes: 1 },
    blockChunks: 2,
    tensors: [],
    layers: [{ name: "block.0.q", shape: [8, 8], rate: 0.3, rank: 1, kept: 0.75, bits: 8, error: 0.1 }],
    perplexity: null,
    bytes: 100,
    denseBytes: 200,
    files: {
      "model.safetensors": {
        bytes: weights.length,
        sha256: createHash("sha256").update(weights).digest("hex"),
      },
    },
  };
}
