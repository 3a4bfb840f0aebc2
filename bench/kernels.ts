/**
 * Speed of the machine's memory and of every linear kernel of the manifest.
 *
 *     deno run --allow-read bench/kernels.ts [--json] [--threads 2] [--kernel w8q4] [--shape 2048x2048] [--batch 1]
 *
 * Weights are streamed: copies of the layer fill more than the caches hold, as the layers of a model do.
 */

import { Arena } from "../kernels/arena.ts";
import { CONSTS_BYTES, TILE_SIZES, type TileSize } from "../kernels/abi.ts";
import {
  chunkCount,
  formatArgument,
  groupCount,
  packedBytes,
  type Shape2,
  type WeightFormat,
} from "../kernels/layout.ts";
import { chosenModules, loadKernelModules, probeEncoding, writeConstants } from "../kernels/load.ts";
import { kernelName, type LinearModule, weightFormat } from "../kernels/manifest.ts";
import { assignWindows, packF32, packQ4, packQ8, packWindows } from "../kernels/packers.ts";
import { chooseAccumulate } from "../kernels/tune.ts";
import type { Task, WorkerStart } from "./_kernels_worker.ts";

export interface BenchKernelsOptions {
  /** Modules of the manifest; all when absent. */
  readonly kernels?: readonly string[];
  readonly shapes?: readonly Shape2[];
  readonly batches?: readonly TileSize[];
  /** Threads of the kernel measurements; bandwidth is measured for 1 to all. */
  readonly threads?: number;
  /** Called after each measurement. */
  readonly onResult?: (result: KernelResult) => void;
}

export interface KernelResult {
  readonly name: string;
  readonly shape: Shape2;
  readonly batch: number;
  readonly threads: number;
  /** Billions of dense-equivalent multiply-adds a second: dOut x dIn x batch / time. */
  readonly gw_per_second: number;
  /** Packed weights read. */
  readonly gb_per_second: number;
  /** Share of the read bandwidth of as many threads. */
  readonly roof_share: number;
}

export interface BenchKernelsReport {
  readonly machine: {
    readonly cores: number;
    /** Best over the numbers of threads. */
    readonly read_gb_per_second: number;
    readonly read_gb_per_second_by_threads: readonly number[];
  };
  readonly kernels: readonly KernelResult[];
}

/** SmolLM2-135M's attention and MLP, then those of 1 to 3 billion parameters. */
const SHAPES: readonly Shape2[] = [[576, 576], [1536, 576], [576, 1536], [2048, 2048], [8192, 2048]];
const BLOCK_CHUNKS = 2;
/** More than a core's share of the last-level cache. */
const STREAM_BYTES = 96 << 20;
const REPEATS = 5;
/** Rows packed from random weights; the others repeat them. */
const SAMPLE_ROWS = 64;

class Pool {
  private constructor(private readonly workers: readonly Worker[]) {}

  static async start(threads: number, start: WorkerStart): Promise<Pool> {
    const url = new URL("./_kernels_worker.ts", import.meta.url);
    const pool = new Pool(Array.from({ length: threads }, () => new Worker(url, { type: "module" })));
    await pool.each(() => start);
    return pool;
  }

  /** Sends a message to the first `threads` workers at once; the slowest answer. */
  async each(
    message: (thread: number) => Task | WorkerStart,
    threads = this.workers.length,
  ): Promise<number> {
    const answers = this.workers.slice(0, threads).map((worker, i) =>
      new Promise<number>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => reject(new Error(event.message));
        worker.postMessage(message(i));
      })
    );
    return Math.max(...await Promise.all(answers));
  }

  [Symbol.dispose](): void {
    for (const worker of this.workers) worker.terminate();
  }
}

function packSample(format: WeightFormat, shape: Shape2): Uint8Array {
  // Any values do; a fixed sequence keeps runs alike.
  const W = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i * 12.9898) * 0.1);
  switch (format.kind) {
    case "f32":
      return packF32(W, shape);
    case "q8":
      return packQ8(W, shape);
    case "q4":
      return packQ4(W, shape);
    case "windows": {
      const mask = assignWindows(W.map(Math.abs), shape, format);
      return packWindows(W.map((w, i) => mask[i] ? w : 0), shape, format);
    }
  }
}

/** Fills `bytes` of the arena at `at` with whole groups of the sample, over and over. */
function fillWeights(arena: Arena, at: number, bytes: number, sample: Uint8Array): void {
  const target = arena.bytes(at, bytes);
  for (let done = 0; done < bytes; done += sample.length) {
    target.set(sample.subarray(0, Math.min(sample.length, bytes - done)), done);
  }
}

/** Bandwidth of 1 to `threads` threads in GB/s. */
async function measureReads(pool: Pool, at: number, bytes: number, threads: number): Promise<number[]> {
  const results = [];
  for (let n = 1; n <= threads; n++) {
    const share = Math.floor(bytes / n / 64) * 64;
    const ms = await pool.each(
      (i) => ({ kind: "read", at: at + i * share, bytes: share, repeats: REPEATS }),
      n,
    );
    results.push(share * n / ms / 1e6);
  }
  return results;
}

interface Bench {
  readonly arena: Arena;
  readonly pool: Pool;
  readonly threads: number;
  readonly weights: number;
  readonly activations: number;
  readonly consts: number;
  readonly roof: number;
}

async function measureLinear(
  bench: Bench,
  module: LinearModule,
  shape: Shape2,
  batches: readonly TileSize[],
): Promise<KernelResult[]> {
  const { arena, pool, threads, weights, activations, consts, roof } = bench;
  const format = weightFormat(module, BLOCK_CHUNKS);
  const [dOut, dIn] = shape;
  const layerBytes = packedBytes(format, shape);
  const copies = Math.max(1, Math.floor(STREAM_BYTES / threads / layerBytes));
  const share = layerBytes * copies;
  fillWeights(arena, weights, share * threads, packSample(format, [SAMPLE_ROWS, dIn]));
  const results = [];
  const chunks = format.kind === "f32" ? dIn : chunkCount(dIn);
  const tileBytes = 8 * 4 * dIn;
  for (const batch of batches) {
    const ms = await pool.each((thread) => {
      const x = activations + thread * (4 * tileBytes + 64 * dOut);
      const y = x + 3 * tileBytes;
      return {
        kind: "linear",
        name: module.name,
        batch,
        weights: weights + thread * share,
        layerBytes,
        copies,
        rest: [
          x,
          x + tileBytes,
          x + 2 * tileBytes,
          y,
          dOut,
          groupCount(dOut),
          chunks,
          formatArgument(format, dIn),
          0,
          consts,
        ],
        repeats: REPEATS,
      };
    }, threads);
    const gbPerSecond = share * threads / ms / 1e6;
    results.push({
      name: kernelName(module, batch),
      shape,
      batch,
      threads,
      gw_per_second: dOut * dIn * batch * copies * threads / ms / 1e6,
      gb_per_second: gbPerSecond,
      roof_share: gbPerSecond / roof,
    });
  }
  return results;
}

/** Measures; about a minute for everything. */
export async function benchKernels(options: BenchKernelsOptions = {}): Promise<BenchKernelsReport> {
  const choice = await chooseAccumulate();
  const linear = chosenModules(choice).filter(({ name }) => options.kernels?.includes(name) ?? true);
  const shapes = options.shapes ?? SHAPES;
  const cores = navigator.hardwareConcurrency;
  const threads = options.threads ?? 1;
  const [widest, tallest] = [Math.max(...shapes.map(([, d]) => d)), Math.max(...shapes.map(([d]) => d))];
  const weightBytes = Math.max(STREAM_BYTES, threads * tallest * widest * 4);
  const activationBytes = threads * (128 * widest + 64 * tallest);
  const arena = new Arena(weightBytes + activationBytes + CONSTS_BYTES + 4096);
  const [consts, weights] = [arena.allocate(CONSTS_BYTES), arena.allocate(weightBytes)];
  const activations = arena.allocate(activationBytes);
  writeConstants(arena.memory, consts, await probeEncoding());
  const modules = await loadKernelModules(["base", ...linear.map(({ name }) => name)], choice);
  using pool = await Pool.start(Math.max(threads, cores), { memory: arena.memory, modules });
  arena.bytes(weights, weightBytes).fill(1);
  await measureReads(pool, weights, 1 << 22, 1); // compiles the loop
  const reads = await measureReads(pool, weights, weightBytes, Math.max(threads, cores));
  const results: KernelResult[] = [];
  const bench = { arena, pool, threads, weights, activations, consts, roof: reads[threads - 1] };
  for (const module of linear) {
    for (const shape of shapes) {
      const measured = await measureLinear(
        bench,
        module,
        shape,
        options.batches ?? [...TILE_SIZES].reverse(),
      );
      for (const result of measured) options.onResult?.(result);
      results.push(...measured);
    }
  }
  return {
    machine: { cores, read_gb_per_second: Math.max(...reads), read_gb_per_second_by_threads: reads },
    kernels: results,
  };
}

function parseArguments(args: readonly string[]): BenchKernelsOptions {
  const values = (name: string) =>
    args.flatMap((arg, i) => args[i - 1] === `--${name}` ? arg.split(",") : []);
  const list = <T>(name: string, parse: (text: string) => T) =>
    values(name).length ? values(name).map(parse) : undefined;
  return {
    kernels: list("kernel", String),
    shapes: list("shape", (text) => text.split("x").map(Number) as unknown as Shape2),
    batches: list("batch", (text) => Number(text) as TileSize),
    threads: list("threads", Number)?.[0],
  };
}

const line = ({ name, shape, batch, gw_per_second, gb_per_second, roof_share }: KernelResult): string =>
  `${name.padEnd(36)} ${shape.join("x").padEnd(10)} ${String(batch).padStart(2)} ${
    gw_per_second.toFixed(1).padStart(7)
  } Gw/s ${gb_per_second.toFixed(2).padStart(6)} GB/s ${(100 * roof_share).toFixed(0).padStart(4)} %`;

if (import.meta.main) {
  const options = parseArguments(Deno.args);
  const json = Deno.args.includes("--json");
  const report = await benchKernels({ ...options, onResult: (result) => console.error(line(result)) });
  if (json) console.log(JSON.stringify(report, null, 2));
  else console.error(report.machine);
}
