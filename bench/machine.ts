/** What the machine can do at most: reads of memory, and each kind of arithmetic, for 1 to all threads. */

import { type UnitTimes, unitTimes } from "../kernels/issue_bound.ts";
import type { Loop } from "../kernels/loop_counts.ts";
import { PEAK_LOOPS, type PeakLoop, READ_STREAMS } from "../kernels/peak.ts";
import type { Pool } from "./_kernels_pool.ts";

/** Multiply-adds of a product instruction: of bytes, of floats. */
const BYTE_PRODUCTS = 16, FLOAT_PRODUCTS = 4;
const PEAK_FILE = "peak";
/** About 50 us: short enough to fall between two interruptions. */
const STEPS = 4000;
const PEAK_RUNS = 40;
/** A run of each thread, about 0.3 ms; runs go on where the last one ended. */
const PIECE_BYTES = 8 << 20;
const READ_RUNS = 60;
/** V8 compiles a hot loop within these. */
const WARM_UP_RUNS = 20;
const WARM_UP_BYTES = 1 << 20;

/** Inner sequences from codes to sums, the multiply peaks. */
export const SEQUENCES = ["i16_q8", "i16_q4", "i32", "f32"] as const satisfies readonly PeakLoop[];

export interface Machine {
  /** `[threads - 1]` GB/s of the best way to read. */
  readonly bandwidth: readonly number[];
  /** `[threads - 1]` the way that won: streams and vectors of a line. */
  readonly readers: readonly string[];
  /** `[threads - 1]` 1e9 multiply-adds a second of all threads, by sequence. */
  readonly multiplies: Readonly<Record<typeof SEQUENCES[number], readonly number[]>>;
  /** `[threads - 1]` of one thread among so many. */
  readonly units: readonly UnitTimes[];
}

/** Addresses: `weights` of `bytes` bytes to read (8 MiB a thread or more), `scratch` of 64 bytes a thread, the kernels' constants. */
export interface MachineMemory {
  readonly weights: number;
  readonly bytes: number;
  readonly scratch: number;
  readonly consts: number;
}

/** @param loops of the `peak` module */
export async function measureMachine(
  pool: Pool,
  loops: ReadonlyMap<string, Loop>,
  memory: MachineMemory,
  threads: number,
): Promise<Machine> {
  const multiplies: Record<typeof SEQUENCES[number], number[]> = { i16_q8: [], i16_q4: [], i32: [], f32: [] };
  const units: UnitTimes[] = [], bandwidth: number[] = [], readers: string[] = [];
  for (let n = 1; n <= threads; n++) {
    const peaks = await measurePeaks(pool, loops, memory, n);
    units.push(unitTimes(peaks));
    for (const sequence of SEQUENCES) {
      const { ns, operations: o } = peaks[sequence];
      const products = sequence === "f32" ? o.madd * FLOAT_PRODUCTS : (o.dot16 + o.dot32) * BYTE_PRODUCTS;
      multiplies[sequence].push(products * n / ns);
    }
    const { name, gbPerSecond } = await measureReads(pool, memory, n);
    bandwidth.push(gbPerSecond);
    readers.push(name);
  }
  return { bandwidth, readers, multiplies, units };
}

async function measurePeaks(
  pool: Pool,
  loops: ReadonlyMap<string, Loop>,
  memory: MachineMemory,
  threads: number,
): Promise<Record<PeakLoop, { ns: number; operations: Loop["operations"] }>> {
  const peaks: [string, { ns: number; operations: Loop["operations"] }][] = [];
  for (const loop of PEAK_LOOPS) {
    const name = `peak_${loop}`;
    const task = (thread: number, runs: number) => ({
      file: PEAK_FILE,
      name,
      args: [STEPS, memory.consts, memory.weights, 0, memory.scratch + 64 * thread],
      calls: 1,
      stride: 0,
      wrap: 1,
      runs,
    });
    await pool.best(threads, (thread) => task(thread, WARM_UP_RUNS));
    const ms = await pool.best(threads, (thread) => task(thread, PEAK_RUNS));
    peaks.push([loop, { ns: ms * 1e6 / STEPS, operations: loops.get(name)!.loops[0].operations }]);
  }
  // Cast: one entry for every member of PEAK_LOOPS.
  return Object.fromEntries(peaks) as Record<PeakLoop, { ns: number; operations: Loop["operations"] }>;
}

/**
 * The fastest way to read memory once. Which way wins depends on the machine and its mood: Zen 5, one thread, 1 / 2 / 4 / 8
 * streams: 32 / 34 / 33 / 27 GB/s; one load a line instead of four: 18 / 27 / 26 / 26.
 */
async function measureReads(
  pool: Pool,
  memory: MachineMemory,
  threads: number,
): Promise<{ name: string; gbPerSecond: number }> {
  let best = { name: "", gbPerSecond: 0 };
  for (const [streams, loads] of READ_STREAMS) {
    const name = `read_${streams}_${loads}`;
    const share = Math.floor(memory.bytes / threads / PIECE_BYTES) * PIECE_BYTES;
    const read = (bytes: number, runs: number) =>
      pool.best(threads, (thread) => ({
        file: PEAK_FILE,
        name,
        args: [memory.weights + thread * share, bytes, memory.scratch + 64 * thread],
        calls: 1,
        stride: bytes,
        wrap: share / bytes,
        runs,
      }));
    await read(WARM_UP_BYTES, WARM_UP_RUNS);
    const gbPerSecond = PIECE_BYTES * threads / await read(PIECE_BYTES, READ_RUNS) / 1e6;
    if (gbPerSecond > best.gbPerSecond) best = { name, gbPerSecond };
  }
  return best;
}
