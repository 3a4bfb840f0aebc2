/**
 * `bench kernels`: the machine's roofs, then how near to them every linear kernel comes at the shapes of real models.
 *
 * Weights are streamed: copies of the layer fill more than the caches hold, as the layers of a model do. Threads share
 * a layer's rows, as in the engine. Two roofs bind a kernel: reading its bytes, and issuing its instructions
 * (kernels/issue_bound.ts); its share is what the later of the two would take, over what it took.
 */

import { OatmillError } from "../errors.ts";
import { Arena } from "../kernels/arena.ts";
import { CONSTS_BYTES, TILE_SIZES, type TileSize } from "../kernels/abi.ts";
import { type ArithmeticUnit, issueBound, kernelOperations, type UnitTimes } from "../kernels/issue_bound.ts";
import {
  chunkCount,
  columnParts,
  finestSlots,
  formatArgument,
  formatName,
  groupBytes,
  groupCount,
  ROWS,
  type Shape2,
  type WeightFormat,
} from "../kernels/layout.ts";
import { chosenModule, probeEncoding, readModule, tileWork, writeConstants } from "../kernels/load.ts";
import { countLoops, type Loop } from "../kernels/loop_counts.ts";
import { kernelName, LINEAR_MODULES, type LinearModule, weightFormat } from "../kernels/manifest.ts";
import { assignWindows, packF32, packQ4, packQ8, packWindows } from "../kernels/packers.ts";
import { toChoice, tune } from "../kernels/tune.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { Pool } from "./_kernels_pool.ts";
import { measureMachine, type SEQUENCES } from "./machine.ts";
import { median } from "./spread.ts";
import { DEFAULT_MODELS, type LayerShape, layersOf } from "./shapes.ts";

export interface BenchKernelsOptions {
  /** Names of formats, as in `w8q4`; `DEFAULT_FORMATS` when absent. */
  readonly formats?: readonly string[];
  /** Every variant of the formats instead of the one that the engine would choose here. */
  readonly allVariants?: boolean;
  /** false: the variants that the engine takes without measuring; default true. */
  readonly autotune?: boolean;
  /** `DEFAULT_MODELS` when absent. */
  readonly models?: readonly SyntheticShape[];
  /** Instead of the models' layers. */
  readonly shapes?: readonly Shape2[];
  /** `DEFAULT_BATCHES` when absent. */
  readonly batches?: readonly TileSize[];
  /** Threads of the kernel measurements (default: all cores); the roofs are measured for 1 to all. */
  readonly threads?: number;
  /** Called after each measurement. */
  readonly onResult?: (result: KernelResult) => void;
}

export interface KernelResult {
  /** XNNPACK-style, see `kernelName()`. */
  readonly name: string;
  readonly format: string;
  readonly variant: string;
  readonly model: string | null;
  readonly layer: string | null;
  /** `[dOut, dIn]` */
  readonly shape: Shape2;
  /** Columns of the part of a row that was run: long rows are stored in parts (kernels/layout.ts). */
  readonly part_columns: number;
  readonly batch: number;
  readonly threads: number;
  /** Billions of dense-equivalent multiply-adds a second: dOut x dIn x batch / time. */
  readonly gw_per_second: number;
  /** Packed weights read. */
  readonly gb_per_second: number;
  /** Time of reading the weights at the bandwidth of as many threads, over the time taken. */
  readonly bandwidth_share: number;
  /** Time of the arithmetic alone (kernels/issue_bound.ts) over the time taken. */
  readonly issue_share: number;
  /** The larger of the two: the share of the roof that binds. */
  readonly roof_share: number;
  /** That roof: the memory, or the unit that is busiest. */
  readonly binds: "bandwidth" | ArithmeticUnit;
  readonly meets_target: boolean;
}

export interface BenchKernelsReport {
  readonly machine: {
    readonly cores: number;
    /** Best over the numbers of threads. */
    readonly read_gb_per_second: number;
    /** `[threads - 1]` */
    readonly read_gb_per_second_by_threads: readonly number[];
    /** `[threads - 1]` the read loop that won: streams side by side, vectors loaded of each line. */
    readonly read_loop_by_threads: readonly string[];
    /** `[threads - 1]` billions of multiply-adds a second of the kernels' inner sequences, on registers. */
    readonly multiply_gmac_per_second_by_threads: Readonly<
      Record<typeof SEQUENCES[number], readonly number[]>
    >;
    /** `[threads - 1]` nanoseconds of one operation of each kind. */
    readonly unit_ns_by_threads: readonly UnitTimes[];
  };
  readonly kernels: readonly KernelResult[];
  /** By kind of work: how many kernels there are, how many meet the target, the median share of their roof. */
  readonly targets: readonly TargetSummary[];
}

export interface TargetSummary {
  readonly work: "decode" | "batched";
  readonly target: string;
  readonly kernels: number;
  readonly met: number;
  readonly median_roof_share: number;
}

/** Dense formats, and the windows that the default recipe takes at rates 0.3, 0.5, 0.7 and 0.9 where it spreads them evenly. */
export const DEFAULT_FORMATS: readonly string[] = [
  "q8",
  "q4",
  ...([8, 4] as const).flatMap((bits) =>
    [10, 7, 4, 1].map((windows) =>
      formatName({ kind: "windows", ...finestSlots(windows), bits, blockChunks: 1 })
    )
  ),
];
/** Decode, and the largest tile, which prefill takes. */
export const DEFAULT_BATCHES: readonly TileSize[] = [1, TILE_SIZES[0]];
/** Decode: of the bandwidth or of the arithmetic; batched: of the roof that binds. */
const TARGETS = { bandwidth: 0.85, issue: 0.8, batched: 0.7 } as const;

const BLOCK_CHUNKS = 2;
/**
 * Eight times a last-level cache of 32 MiB. Of 96 MiB, parts stay in it: one thread's best read is 41 instead of 30 to 34
 * GB/s (Zen 5).
 */
const STREAM_BYTES = 256 << 20;
/**
 * A run takes about so long at the roof: long against the threads' start, short enough to be left in peace by whatever
 * else runs; the best of `RUNS` counts.
 */
const RUN_MS = 1;
const RUNS = 40;
/** Groups that fit the second-level cache with every format of 11008 columns. */
const WARM_UP_GROUPS = 4;
const WARM_UP_LIMIT_MS = 5000;
/** Optimised code takes less than this share of the first code's time (q8, w6q4: 0.3 to 0.55). */
const OPTIMISED = 0.7;
/** What a 32-bit memory can hold. */
const MEMORY_BYTES = 2 ** 32;
/** Rows packed from random weights; the others repeat them. */
const SAMPLE_ROWS = 16;

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
  target.set(sample.subarray(0, bytes));
  for (let done = Math.min(sample.length, bytes); done < bytes; done *= 2) {
    target.copyWithin(done, 0, Math.min(done, bytes - done));
  }
}

/** What every measurement of a run shares. */
interface Bench {
  readonly arena: Arena;
  readonly pool: Pool;
  readonly threads: number;
  readonly weights: number;
  readonly activations: number;
  readonly activationBytes: number;
  readonly consts: number;
  /** GB/s of `threads` threads. */
  readonly bandwidth: number;
  readonly units: UnitTimes;
}

/** Bytes of one thread's three views of a tile and its output. */
const activationBytesOf = ([dOut, dIn]: Shape2, batch: number): number =>
  3 * batch * 4 * (dIn + 64) + batch * 4 * dOut + 256;

/** Groups rounded up to whole panels of two. */
const wholePanels = (groups: number): number => 2 * Math.ceil(groups / 2);
/** A thread's groups of a layer. */
const panelShare = (dOut: number, threads: number): number => wholePanels(groupCount(dOut) / threads);

/** A kernel at work: `groups` groups of rows of a layer a call. */
interface Work {
  readonly format: WeightFormat;
  readonly shape: Shape2;
  readonly batch: TileSize;
  readonly groups: number;
}

/** Arguments of a thread's first call; its weights start at `weights`. */
function callArguments(
  bench: Bench,
  { format, shape: [dOut, dIn], batch, groups }: Work,
  { thread, weights }: { thread: number; weights: number },
): number[] {
  const xBytes = batch * 4 * (dIn + 64);
  const x = bench.activations + thread * bench.activationBytes;
  return [
    weights,
    x,
    x + xBytes,
    x + 2 * xBytes,
    x + 3 * xBytes,
    dOut,
    groups,
    format.kind === "f32" ? dIn : chunkCount(dIn),
    formatArgument(format, dIn),
    0,
    bench.consts,
  ];
}

/**
 * Runs a kernel until V8 has replaced its first, unoptimised code: then a call in the cache takes half of
 * the time. Compiling takes 20 to 200 ms beside the run.
 */
async function warmUp(bench: Bench, file: string, work: Work): Promise<void> {
  const perCall = async (calls: number, runs: number) =>
    await bench.pool.best(1, () => ({
      file,
      name: `mv_b${work.batch}`,
      args: callArguments(bench, work, { thread: 0, weights: bench.weights }),
      calls,
      stride: 0,
      wrap: 1,
      runs,
    })) / calls;
  // The very first call compiles that first code, which the next few run.
  const first = await perCall(1, 6), end = performance.now() + WARM_UP_LIMIT_MS;
  while (await perCall(20, 5) > first * OPTIMISED && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function measureLinear(
  bench: Bench,
  { module, loops, layer, batch }: {
    module: LinearModule;
    loops: ReadonlyMap<string, Loop>;
    layer: Layer;
    batch: TileSize;
  },
): Promise<KernelResult> {
  const { pool, threads, units } = bench;
  const { shape } = layer, [dOut] = shape;
  const format = weightFormat(module, BLOCK_CHUNKS);
  const [{ cols: dIn }] = columnParts(format, shape[1]);
  const name = `mv_b${batch}`;
  const roofs = (groups: number) => ({
    bytes: groups * groupBytes(format, dIn),
    bandwidthMs: threads * groups * groupBytes(format, dIn) / bench.bandwidth / 1e6,
    issue: issueBound(
      kernelOperations(loops.get(name)!, { format, shape: [groups * ROWS, dIn], batch }),
      units,
    ),
  });
  const timeOf = ({ bandwidthMs, issue }: ReturnType<typeof roofs>) => Math.max(bandwidthMs, issue.ns / 1e6);

  // A call is a thread's share of the layer, or an even part of it when that takes long; a run is as many calls as fill
  // the same time. All calls together stream through the whole memory.
  const share = panelShare(dOut, threads);
  const groups = wholePanels(share / Math.ceil(timeOf(roofs(share)) / RUN_MS));
  const call = roofs(groups);
  const calls = Math.max(1, Math.round(RUN_MS / timeOf(call)));
  const wrap = Math.max(1, Math.floor(STREAM_BYTES / threads / call.bytes));
  const ms = await pool.best(threads, (thread) => ({
    file: module.file,
    name,
    args: callArguments(bench, { format, shape: [dOut, dIn], batch, groups }, {
      thread,
      weights: bench.weights + thread * wrap * call.bytes,
    }),
    calls,
    stride: call.bytes,
    wrap,
    runs: RUNS,
  })) / calls;
  const { bandwidthMs, issue } = call, issueMs = issue.ns / 1e6;
  const bandwidthShare = bandwidthMs / ms, issueShare = issueMs / ms;
  const roofShare = Math.max(bandwidthShare, issueShare);
  return {
    name: kernelName(module, batch),
    format: module.name,
    variant: module.variant,
    model: layer.model,
    layer: layer.layer,
    shape,
    part_columns: dIn,
    batch,
    threads,
    gw_per_second: threads * groups * ROWS * dIn * batch / ms / 1e6,
    gb_per_second: threads * call.bytes / ms / 1e6,
    bandwidth_share: bandwidthShare,
    issue_share: issueShare,
    roof_share: roofShare,
    binds: bandwidthShare >= issueShare ? "bandwidth" : issue.unit,
    meets_target: batch === 1
      ? bandwidthShare >= TARGETS.bandwidth || issueShare >= TARGETS.issue
      : roofShare >= TARGETS.batched,
  };
}

type Layer = Omit<LayerShape, "model" | "layer"> & { model: string | null; layer: string | null };

function summarize(kernels: readonly KernelResult[]): TargetSummary[] {
  const summary = (work: TargetSummary["work"], target: string, of: readonly KernelResult[]) =>
    of.length === 0 ? [] : [{
      work,
      target,
      kernels: of.length,
      met: of.filter((k) => k.meets_target).length,
      median_roof_share: median(of.map((k) => k.roof_share)),
    }];
  return [
    ...summary(
      "decode",
      `bandwidth_share >= ${TARGETS.bandwidth} or issue_share >= ${TARGETS.issue}`,
      kernels.filter((k) => k.batch === 1),
    ),
    ...summary("batched", `roof_share >= ${TARGETS.batched}`, kernels.filter((k) => k.batch > 1)),
  ];
}

/**
 * Measures; the default takes about two minutes on two cores.
 * @throws {OatmillError} invalid_request for a format that does not exist, too_large when a layer does not fit a memory
 */
export async function benchKernels(options: BenchKernelsOptions = {}): Promise<BenchKernelsReport> {
  const names = options.formats ?? DEFAULT_FORMATS;
  const known = [...new Set(LINEAR_MODULES.map((module) => module.name))];
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new OatmillError(
      "invalid_request",
      `Cannot find weight format "${unknown}": there are ${known.join(", ")}`,
    );
  }
  const batches = options.batches ?? DEFAULT_BATCHES;
  const choice = options.autotune ?? true ? toChoice(names, await tune(names, {})) : {};
  const modulesOf = (name: string, batch: TileSize): readonly LinearModule[] =>
    options.allVariants
      ? LINEAR_MODULES.filter((module) => module.name === name)
      : [chosenModule(name, tileWork(batch), choice)];
  const modules = [
    ...new Set(names.flatMap((name) => batches.flatMap((batch) => modulesOf(name, batch)))),
  ];
  const layers: readonly Layer[] = options.shapes?.map((shape) => ({ shape, model: null, layer: null })) ??
    (options.models ?? DEFAULT_MODELS).flatMap(layersOf);
  const cores = navigator.hardwareConcurrency;
  const threads = options.threads ?? cores, allThreads = Math.max(threads, cores);

  // At least one call of every thread, which is at most its share of a layer.
  const weightBytes = Math.max(
    STREAM_BYTES,
    ...modules.flatMap((module) =>
      layers.map(({ shape: [dOut, dIn] }) => {
        return threads * panelShare(dOut, threads) * groupBytes(weightFormat(module, BLOCK_CHUNKS), dIn);
      })
    ),
  );
  const activationBytes = 64 * Math.ceil(
    Math.max(...layers.map(({ shape }) => activationBytesOf(shape, Math.max(...batches)))) / 64,
  );
  const arenaBytes = weightBytes + threads * activationBytes + CONSTS_BYTES + 64 * (allThreads + 2) + 4096;
  if (arenaBytes > MEMORY_BYTES) {
    throw new OatmillError(
      "too_large",
      `Cannot measure layers that take ${(arenaBytes / 2 ** 30).toFixed(1)} GiB: a memory holds 4`,
    );
  }
  const arena = new Arena(arenaBytes);
  const [barrier, consts, scratch] = [64, CONSTS_BYTES, 64 * allThreads].map((b) => arena.allocate(b));
  const [weights, activations] = [weightBytes, threads * activationBytes].map((b) => arena.allocate(b));
  writeConstants(arena.memory, consts, await probeEncoding());

  const bytes = new Map(
    await Promise.all(
      ["peak", ...modules.map(({ file }) => file)].map(async (file) =>
        [file, await readModule(file)] as const
      ),
    ),
  );
  const compiled = new Map(
    await Promise.all(
      [...bytes].map(async ([file, code]) => [file, await WebAssembly.compile(code)] as const),
    ),
  );
  using pool = await Pool.start(allThreads, { memory: arena.memory, modules: compiled }, barrier);
  arena.bytes(weights, weightBytes).fill(1);
  const machine = await measureMachine(
    pool,
    countLoops(bytes.get("peak")!),
    { weights, bytes: STREAM_BYTES, scratch, consts },
    allThreads,
  );
  const bench = {
    arena,
    pool,
    threads,
    weights,
    activations,
    activationBytes,
    consts,
    bandwidth: machine.bandwidth[threads - 1],
    units: machine.units[threads - 1],
  };
  const results: KernelResult[] = [];
  for (const module of modules) {
    const loops = countLoops(bytes.get(module.file)!);
    const format = weightFormat(module, BLOCK_CHUNKS);
    const used = batches.filter((batch) => modulesOf(module.name, batch).includes(module));
    for (const batch of used) {
      await warmUp(bench, module.file, { format, shape: layers[0].shape, batch, groups: WARM_UP_GROUPS });
    }
    let filled = 0;
    for (const layer of layers) {
      const dIn = layer.shape[1];
      if (dIn !== filled) fillWeights(arena, weights, weightBytes, packSample(format, [SAMPLE_ROWS, dIn]));
      filled = dIn;
      for (const batch of used) {
        const result = await measureLinear(bench, { module, loops, layer, batch });
        options.onResult?.(result);
        results.push(result);
      }
    }
  }
  return {
    machine: {
      cores,
      read_gb_per_second: Math.max(...machine.bandwidth),
      read_gb_per_second_by_threads: machine.bandwidth,
      read_loop_by_threads: machine.readers,
      multiply_gmac_per_second_by_threads: machine.multiplies,
      unit_ns_by_threads: machine.units,
    },
    kernels: results,
    targets: summarize(results),
  };
}
