/**
 * Which variants of the linear modules are faster on this machine. Main thread, before workers start.
 *
 * The choices are data: modules of the manifest that share a format's name and differ in `variant`. One format stands
 * for all of its kind and width, because their inner steps are the same, and is measured twice: one row with weights
 * from memory, eight rows with weights in the cache. What the budget does not reach stays as the manifest has it.
 */

import { Arena } from "./arena.ts";
import { CONSTS_BYTES, type LinearKernel, TILE_SIZES } from "./abi.ts";
import { chunkCount, formatArgument, groupBytes, ROWS } from "./layout.ts";
import { ENCODINGS, type KernelChoice, readModule, type TileWork, writeConstants } from "./load.ts";
import { LINEAR_MODULES, type LinearModule, weightFormat } from "./manifest.ts";

/** What was measured, by kind and width of a format's codes (`formatClass`). */
export type Tuned = Readonly<
  Record<string, Readonly<Record<TileWork, string>> & { readonly format: string }>
>;

/**
 * Best nanoseconds of each module at the work, or null when the time did not suffice to tell.
 * @param deadline what `now()` may reach
 */
export type Measure = (
  modules: readonly LinearModule[],
  work: TileWork,
  deadline: number,
) => Promise<readonly number[] | null>;

export interface TuneOptions {
  readonly measure?: Measure;
  /** Milliseconds. */
  readonly now?: () => number;
  readonly budgetMs?: number;
}

/** Most that a start may wait for. */
export const BUDGET_MS = 200;
/** A variant must be so much faster than the first: less lies within the noise of a busy machine. */
const GAIN = 0.95;
/** Share of the budget that one measurement may take. */
const MOST = 1 / 3;
const WORKS: readonly TileWork[] = ["decode", "batched"];

const modulesOf = (name: string): LinearModule[] => LINEAR_MODULES.filter((module) => module.name === name);

/** Formats of one class have the same variants and inner steps: `f32`, `q8`, `q4`, `w8` (windows of 8-bit codes), `w4`, `h8` (with halves), `h4`. */
export function formatClass(name: string): string {
  const [{ format }] = modulesOf(name);
  return format.kind === "windows" ? `${format.halves ? "h" : "w"}${format.bits}` : format.kind;
}

/**
 * Measures what `known` does not hold, the first format of each class, those with fewest variants first.
 * @param formats names, the most important first
 */
export async function tune(
  formats: readonly string[],
  known: Tuned,
  { measure = measureVariants, now = () => performance.now(), budgetMs = BUDGET_MS }: TuneOptions = {},
): Promise<Tuned> {
  const deadline = now() + budgetMs;
  const tuned: Record<string, Tuned[string]> = { ...known };
  const open = new Map<string, string>();
  for (const name of formats) {
    const kind = formatClass(name);
    if (!(kind in tuned) && !open.has(kind) && modulesOf(name).length > 1) open.set(kind, name);
  }
  const variants = (name: string) => modulesOf(name).length;
  for (const [kind, format] of [...open].sort(([, a], [, b]) => variants(a) - variants(b))) {
    const modules = modulesOf(format);
    const picked: Partial<Record<TileWork, string>> = {};
    for (const work of WORKS) {
      const limit = Math.min(deadline, now() + budgetMs * MOST);
      const times = now() < deadline ? await measure(modules, work, limit) : null;
      if (times) picked[work] = pick(modules, times);
    }
    // Half a result is none: it would be kept as if all had been measured.
    if (picked.decode && picked.batched) {
      tuned[kind] = { format, decode: picked.decode, batched: picked.batched };
    }
  }
  return tuned;
}

function pick(modules: readonly LinearModule[], times: readonly number[]): string {
  let best = 0;
  for (let i = 1; i < times.length; i++) {
    if (times[i] < times[0] * GAIN && times[i] < times[best]) best = i;
  }
  return modules[best].variant;
}

/** The choice for these formats; those of a class that was not measured are left out. */
export function toChoice(formats: readonly string[], tuned: Tuned): KernelChoice {
  return Object.fromEntries(formats.flatMap((name) => {
    const result = tuned[formatClass(name)];
    return result ? [[name, { decode: result.decode, batched: result.batched }]] : [];
  }));
}

/** Columns of the measured layer: short enough for its activations to stay in the first-level cache. */
const COLUMNS = 1024;
/** More than a second-level cache; the batched work takes one `CALL_BYTES` over and over. */
const STREAM_BYTES = 4 << 20;
const CALL_BYTES = 128 << 10;
const ROUNDS = 5;
/** A round of a variant lasts about so long. */
const DECODE_CALLS = 16, BATCHED_CALLS = 2;
/** Calls between two looks; V8 replaces code that ran for a few milliseconds. */
const WARM_UP_CALLS = 20;
const BATCHED_TILE = TILE_SIZES[0];
/** Optimised code takes less than this share of V8's first code's time (measured: 0.3 to 0.55). */
const OPTIMISED = 0.7;

/** One variant at work; both give the nanoseconds that they took. */
interface Runner {
  /** A round of the work that is measured. */
  run(): number;
  /** One call on weights in the cache, where the code's speed shows. */
  warmUp(): number;
}

/** Groups of one call: whole panels of about {@linkcode CALL_BYTES}. */
const callGroups = (module: LinearModule): number =>
  Math.max(2, Math.floor(CALL_BYTES / groupBytes(weightFormat(module, 2), COLUMNS) / 2) * 2);

/** Products of weights and activations in one round of {@linkcode measureVariants}. */
export const roundProducts = (module: LinearModule, work: TileWork): number =>
  callGroups(module) * ROWS * COLUMNS * (work === "decode" ? DECODE_CALLS : BATCHED_CALLS * BATCHED_TILE);

/**
 * Measures with all bytes zero: values do not matter to the time.
 *
 * @param modules of one format
 * @param options.streamBytes of weights that decode reads before it reads the same again
 * @param options.late measure also when the deadline came before V8's better code did
 * @returns best nanoseconds of a round of each module, or null when the deadline came first
 */
export async function measureVariants(
  modules: readonly LinearModule[],
  work: TileWork,
  deadline: number,
  { streamBytes = STREAM_BYTES, late = false }: { readonly streamBytes?: number; readonly late?: boolean } =
    {},
): Promise<number[] | null> {
  const format = weightFormat(modules[0], 2);
  const batch = work === "decode" ? 1 : BATCHED_TILE;
  const bytes = groupBytes(format, COLUMNS);
  const groups = callGroups(modules[0]);
  const arena = new Arena(streamBytes + (1 << 20));
  const [consts, w] = [CONSTS_BYTES, streamBytes].map((size) => arena.allocate(size));
  const [x, xs] = [4 * batch * COLUMNS, batch * COLUMNS].map((size) => arena.allocate(size));
  const y = arena.allocate(batch * groups * 4 * 4);
  writeConstants(arena.memory, consts, ENCODINGS[64]);
  const pieces = work === "decode" ? Math.floor(streamBytes / (groups * bytes)) : 1;
  const calls = work === "decode" ? DECODE_CALLS : BATCHED_CALLS;
  let piece = 0;
  const runner = async ({ file }: LinearModule): Promise<Runner> => {
    const module = await WebAssembly.compile(await readModule(file));
    const { exports } = new WebAssembly.Instance(module, { env: { memory: arena.memory } });
    const kernel = exports[`mv_b${batch}`] as LinearKernel;
    const chunks = chunkCount(COLUMNS), argument = formatArgument(format, COLUMNS);
    const timed = (calls: number, address: () => number) => {
      const start = performance.now();
      for (let i = 0; i < calls; i++) {
        kernel(address(), x, x, xs, y, groups * 4, groups, chunks, argument, 0, consts);
      }
      return (performance.now() - start) * 1e6;
    };
    return {
      run: () => timed(calls, () => w + (piece++ % pieces) * groups * bytes),
      warmUp: () => timed(1, () => w),
    };
  };
  const runners = await Promise.all(modules.map(runner));
  if (!await optimised(runners, deadline) && !late) return null;
  const best = runners.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round++) {
    runners.forEach((one, i) => best[i] = Math.min(best[i], one.run()));
  }
  return best;
}

/** Warms all up until V8 has replaced their first code, or not in time. */
async function optimised(runners: readonly Runner[], deadline: number): Promise<boolean> {
  const first = runners.map((one) => {
    one.warmUp(); // compiles the first code
    // At once and few: a millisecond later the better code may be there, and the wait for it would not end.
    return Math.min(one.warmUp(), one.warmUp());
  });
  const waiting = new Set(runners.keys());
  while (waiting.size > 0) {
    for (const i of waiting) {
      for (let call = 0; call < WARM_UP_CALLS && waiting.has(i); call++) {
        if (runners[i].warmUp() < first[i] * OPTIMISED) waiting.delete(i);
      }
    }
    if (performance.now() > deadline) return false;
    // The compiler needs the core on a machine without a free one.
    if (waiting.size > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return true;
}
