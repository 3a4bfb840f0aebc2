/**
 * `inspect --speed`: how long each kind of linear layer of a model takes on this machine as it is stored, and as dense
 * int8 and int4, by tokens at once.
 *
 * The engine's own plan and executor run (S, V, the preparation of V's output, U, the barriers between), without the
 * preparation of the layer's input, which all ways to store it share. Layers of one input lie side by side, as in the
 * engine. All ways take turns, and each one's weights have left the caches when it is its turn again.
 */
import { collectGarbage } from "../engine/collect_garbage.ts";
import { adviseHugePages } from "../engine/huge_pages.ts";
import { mapMemory } from "../engine/memory_map.ts";
import { weightsEnd } from "../engine/segment_map.ts";
import { chooseKernels, type TuningOptions } from "../engine/tuning.ts";
import { formatName, packedBytes, type Shape2 } from "../kernels/layout.ts";
import { createMemory, loadKernelModules, probeEncoding, writeConstants } from "../kernels/load.ts";
import type { StoredPart, TensorEntry } from "../models/formats/artifact_header.ts";
import { type InputKind, LINEAR_INPUT, LINEAR_NAMES, type LinearKind } from "../models/spec.ts";
import type { LayersRun, LayersStart, LayersTask } from "./_layers_worker.ts";
import { layersModel, layersOfInput, type StoredCopies } from "./_layers_model.ts";
import { isSparse, type LayerKind, type ModelLayers } from "./layer_kinds.ts";
import { median } from "./spread.ts";
import { Workers } from "./_workers.ts";

/** Tokens at once: decode of one stream, of several (one tile), a piece of a prompt (several tiles over slabs). */
export const SPEED_BATCHES = [1, 8, 64] as const;
export type SpeedBatch = typeof SPEED_BATCHES[number];
/** What a layer's speed is compared with; a compressed model's dense layers are int8. */
export const DENSE_RIVALS = ["int8", "int4"] as const;
export type DenseRival = typeof DENSE_RIVALS[number];

export interface BatchSpeed {
  readonly batch: SpeedBatch;
  /** Microseconds of one layer. */
  readonly us: number;
  readonly dense_us: Readonly<Record<DenseRival, number>>;
  /** Dense time over this one: above 1 the layer is faster as it is stored. */
  readonly against: Readonly<Record<DenseRival, number>>;
}

export interface KindSpeed {
  readonly kind: LayerKind;
  readonly batches: readonly BatchSpeed[];
}

/** All sparse layers of one name. */
export interface NameSpeed {
  readonly name: LinearKind;
  readonly layers: number;
  /** Dense time of all these layers over theirs, by batch. */
  readonly batches: readonly {
    readonly batch: SpeedBatch;
    readonly against: Readonly<Record<DenseRival, number>>;
  }[];
  /** Batches at which they are faster than dense ones. */
  readonly faster_at: Readonly<Record<DenseRival, readonly SpeedBatch[]>>;
}

export interface LayersReport {
  readonly threads: number;
  /** Median round over the best one, of all that was measured: near 1 on a quiet machine. */
  readonly disturbance: number;
  readonly kinds: readonly KindSpeed[];
  readonly names: readonly NameSpeed[];
  /** Layers to leave dense: those that are faster than dense int8 at no batch; by batch, those that are slower at it. */
  readonly leave_dense: {
    readonly always: readonly LinearKind[];
    readonly by_batch: readonly { readonly batch: SpeedBatch; readonly names: readonly LinearKind[] }[];
  };
}

export interface BenchLayersOptions {
  /** Default: all cores. */
  readonly threads?: number;
  /** Of the kernels' variants, as an engine chooses them. */
  readonly tuning?: TuningOptions;
  /** Shorter measurements, for tests. */
  readonly quick?: boolean;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Weights of all ways together: a way's weights come from memory, because the others' pass through the caches before it
 * is its turn again (last-level cache of 32 MiB; bench/kernels.ts STREAM_BYTES).
 */
const STREAM_BYTES = 256 << 20;
/**
 * A run takes this share of a way's copies, in turn: about a quarter of a millisecond, which on a busy machine is often
 * left in peace. (Beside eight busy processes on 2 cores, runs of 1 to 3 ms on 2 threads measured up to 3 times as long.)
 */
const RUN_SHARE: Readonly<Record<SpeedBatch, number>> = { 1: 1 / 4, 8: 1 / 16, 64: 1 / 64 };
/** V8 replaces its first code within these (20 to 200 ms of compiling beside the runs). */
const WARM_UP = { rounds: 3, ms: 300 };
/** Rounds go on for so long, but are within these numbers. */
const ROUNDS = { min: 9, max: 200, ms: 3500 };
const QUICK = { streamBytes: 1 << 16, warmUp: { rounds: 1, ms: 0 }, rounds: { min: 2, max: 2, ms: 0 } };

const DENSE_FORMATS = { int8: { kind: "q8" }, int4: { kind: "q4" } } as const;

/** Kinds that are measured against the same dense layers: those of one input and shape. */
interface Session {
  readonly input: InputKind;
  readonly shape: Shape2;
  readonly kinds: readonly LayerKind[];
}

function sessionsOf(kinds: readonly LayerKind[]): Session[] {
  const inputOf = ({ layers }: LayerKind) => LINEAR_INPUT[Object.keys(layers)[0] as LinearKind];
  const groups = Map.groupBy(
    kinds.filter(isSparse),
    (kind) => JSON.stringify([inputOf(kind), kind.shape]),
  );
  return [...groups.values()].map((some) => ({ input: inputOf(some[0]), shape: some[0].shape, kinds: some }));
}

/**
 * Measures the kinds that are stored sparse.
 * @returns kinds in the given order
 */
export async function benchLayers(
  model: ModelLayers,
  options: BenchLayersOptions = {},
): Promise<LayersReport> {
  const threads = options.threads ?? navigator.hardwareConcurrency;
  const sessions = sessionsOf(model.kinds);
  const modules = await loadModules(sessions, options.tuning);
  const kinds: KindSpeed[] = [], disturbances: number[] = [];
  for (const [i, session] of sessions.entries()) {
    options.onProgress?.(i, sessions.length);
    const measured = await measure(session, { model, modules, threads, quick: options.quick ?? false });
    kinds.push(...measured.kinds);
    disturbances.push(...measured.disturbances);
    collectGarbage(); // the session's memory: the next one's would come on top
  }
  options.onProgress?.(sessions.length, sessions.length);
  const names = namesOf(kinds);
  const slower = (batch: SpeedBatch) =>
    names.filter((n) => !n.faster_at.int8.includes(batch)).map((n) => n.name);
  return {
    threads,
    disturbance: disturbances.length > 0 ? median(disturbances) : 1,
    kinds,
    names,
    leave_dense: {
      always: names.filter((n) => n.faster_at.int8.length === 0).map((n) => n.name),
      by_batch: SPEED_BATCHES.map((batch) => ({ batch, names: slower(batch) })),
    },
  };
}

const denseParts = (rival: DenseRival, shape: Shape2): StoredPart[] => [
  { part: "w", format: DENSE_FORMATS[rival], shape },
];

/** The variants that an engine would run. */
async function loadModules(sessions: readonly Session[], tuning: TuningOptions | undefined) {
  const parts = sessions.flatMap(({ kinds, shape }) => [
    ...kinds.flatMap((kind) => kind.parts),
    ...DENSE_RIVALS.flatMap((rival) => denseParts(rival, shape)),
  ]);
  const tensors = parts.map(({ part, format, shape }): TensorEntry => ({
    ...{ name: part, format, shape, offset: 0, bytes: packedBytes(format, shape) },
  }));
  const names = ["base", ...parts.map(({ format }) => formatName(format))];
  return await loadKernelModules(names, await chooseKernels(tensors, tuning));
}

interface Context {
  readonly model: ModelLayers;
  readonly modules: ReadonlyMap<string, WebAssembly.Module>;
  readonly threads: number;
  readonly quick: boolean;
}

async function measure(
  session: Session,
  context: Context,
): Promise<{ kinds: KindSpeed[]; disturbances: number[] }> {
  const { model: { spec, blockChunks }, modules, threads, quick } = context;
  const { input, shape, kinds } = session;
  const dense = DENSE_RIVALS.map((rival) => denseParts(rival, shape));
  const all = [...dense, ...kinds.map(({ parts }) => parts)];
  const layersPerCopy = layersOfInput(spec, input).length;
  const wayBytes = (quick ? QUICK.streamBytes : STREAM_BYTES) / all.length;
  const ways = all.map((parts): StoredCopies => {
    const bytes = parts.reduce((sum, p) => sum + packedBytes(p.format, p.shape), 0) * layersPerCopy;
    return { parts, copies: Math.max(1, Math.round(wayBytes / bytes)) };
  });
  const { model, plan, ends } = layersModel(spec, { input, shape, blockChunks, ways });
  const map = mapMemory(model, plan, {
    threads,
    maxRows: Math.max(...SPEED_BATCHES),
    maxSequences: 1,
    kvBlocks: 0,
    contextLength: 16,
    kvFormat: "f32",
  });
  const [segment] = map.segments;
  const memory = createMemory(segment.bytes), bytes = new Uint8Array(memory.buffer);
  adviseHugePages(memory, segment.bytes);
  await model.load(({ name }) => {
    const { address, entry } = segment.tensors[name];
    return bytes.subarray(address, address + entry.bytes);
  });
  bytes.fill(0, weightsEnd(segment), segment.bytes); // inputs are zero, but in pages of their own
  new Int32Array(memory.buffer, segment.step.contexts, SPEED_BATCHES.at(-1)).fill(1); // each row sees itself
  writeConstants(memory, segment.consts, await probeEncoding());

  using workers = new Workers(new URL("./_layers_worker.ts", import.meta.url), threads);
  await workers.ask(threads, (thread): LayersStart => ({
    ...{ type: "start", memory, modules, plan, map, spec: model.spec, blockChunks, thread, threads },
  }));
  // By batch: between two runs of one way the weights of all others pass through the caches.
  const turns = SPEED_BATCHES.flatMap((batch) =>
    ways.map(({ copies }, way) => {
      const some = Math.max(1, Math.round(copies * RUN_SHARE[batch]));
      const begins = [way === 0 ? 0 : ends[way - 1].at(-1)!, ...ends[way]];
      const runs = Array.from({ length: Math.floor(copies / some) }, (_, i): LayersRun => ({
        ...{ begin: begins[i * some], end: begins[(i + 1) * some], rows: batch },
      }));
      return { runs, layers: some * layersPerCopy };
    })
  );
  let rounds = 0;
  /**
   * Microseconds of a layer, by turn. Each run is asked for alone: on a busy machine a thread that just woke up is left in
   * peace for longer than one that has run for a while. Another turn begins each round.
   */
  const round = async () => {
    const us = new Array<number>(turns.length);
    for (let i = 0; i < turns.length; i++) {
      const at = (rounds + i) % turns.length, { runs, layers } = turns[at];
      const run = runs[rounds % runs.length];
      const [ms] = await workers.ask<number>(threads, (): LayersTask => ({ type: "run", run }));
      us[at] = ms * 1000 / layers;
    }
    rounds++;
    return us;
  };
  await repeat(round, { ...quick ? QUICK.warmUp : WARM_UP, max: Infinity });
  const { min, max, ms } = quick ? QUICK.rounds : ROUNDS;
  const times = await repeat(round, { rounds: min, ms, max });
  const byTurn = turns.map((_, at) => times.map((us) => us[at]));
  // The best round: whatever else runs on the machine only adds time.
  const usOf = (way: number, batch: SpeedBatch) =>
    Math.min(...byTurn[SPEED_BATCHES.indexOf(batch) * ways.length + way]);
  const speeds = kinds.map((kind, i): KindSpeed => ({
    kind,
    batches: SPEED_BATCHES.map((batch) => {
      const us = usOf(DENSE_RIVALS.length + i, batch);
      const denseUs = byRival((_, way) => usOf(way, batch));
      return { batch, us, dense_us: denseUs, against: byRival((rival) => denseUs[rival] / us) };
    }),
  }));
  return { kinds: speeds, disturbances: byTurn.map((us) => median(us) / Math.min(...us)) };
}

/** At least so many rounds, and more until the time is over. */
async function repeat<T>(
  round: () => Promise<T>,
  { rounds, ms, max }: { readonly rounds: number; readonly ms: number; readonly max: number },
): Promise<T[]> {
  const done: T[] = [], end = performance.now() + ms;
  while (done.length < rounds || (done.length < max && performance.now() < end)) done.push(await round());
  return done;
}

const byRival = <T>(value: (rival: DenseRival, index: number) => T): Record<DenseRival, T> => ({
  int8: value("int8", 0),
  int4: value("int4", 1),
});

/** Kinds summed up by name: the time of all layers of a name, against dense ones. */
export function namesOf(kinds: readonly KindSpeed[]): NameSpeed[] {
  return LINEAR_NAMES.flatMap((name) => {
    const own = kinds.filter(({ kind }) => kind.layers[name]);
    if (own.length === 0) return [];
    const count = ({ kind }: KindSpeed) => kind.layers[name]!;
    const batches = SPEED_BATCHES.map((batch) => {
      const at = (k: KindSpeed) => k.batches.find((b) => b.batch === batch)!;
      const time = own.reduce((sum, k) => sum + count(k) * at(k).us, 0);
      const against = byRival((rival) =>
        own.reduce((sum, k) => sum + count(k) * at(k).us * at(k).against[rival], 0) / time
      );
      return { batch, against };
    });
    const fasterAt = byRival((rival) => batches.filter((b) => b.against[rival] > 1).map((b) => b.batch));
    return [{ name, layers: own.reduce((n, k) => n + count(k), 0), batches, faster_at: fasterAt }];
  });
}
