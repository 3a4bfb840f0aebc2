/**
 * A step of one row as a flat list of kernel calls. Which calls an operation makes, and with which arguments, is then the
 * same in every step: what changes (token, position, KV block) lies in memory. So they are noted once, by kernels that note
 * instead of compute, and a decode step walks the list.
 */
import type { Kernels } from "../../kernels/load.ts";
import type { Run, Tile } from "./bound.ts";

/** A kernel call with all its arguments. */
export type Call = () => void;

// Any kernel: arguments are numbers, and what is recorded here returns nothing.
type Kernel = (...args: number[]) => void;

/** The only tile of a step of one row. */
export const ONE_ROW: readonly Tile[] = [{ row: 0, size: 1 }];

/** Kernels that add their calls to `calls` instead of making them. */
export function recordingKernels(kernels: Kernels, calls: Call[]): Kernels {
  const note = (kernel: Kernel): Kernel => (...args) => void calls.push(kernel.bind(null, ...args));
  // Casts: every function becomes one of the same parameters.
  const noteAll = <T extends object>(functions: T): T =>
    Object.fromEntries(
      Object.entries(functions).map(([name, value]) => [
        name,
        typeof value === "function" ? note(value as Kernel) : noteAll(value as object),
      ]),
    ) as T;
  return {
    base: noteAll(kernels.base),
    linear: (name, size) => note(kernels.linear(name, size) as Kernel) as ReturnType<Kernels["linear"]>,
    attention: (format) => noteAll(kernels.attention(format)),
  };
}

/**
 * The calls of one row.
 * @param run bound to recording kernels
 * @param mine whether this thread does what threads share by rows
 */
export function callsOfRow(run: Run, calls: Call[], mine: boolean): readonly Call[] {
  calls.length = 0;
  run(1, ONE_ROW, mine ? ONE_ROW : []);
  return [...calls];
}
