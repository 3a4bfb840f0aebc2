/**
 * How the compute threads of one engine meet: a control block in shared memory with a step counter and a barrier. Threads
 * spin briefly, then sleep: a decode step crosses ~15 barriers a block, so a futex call at each would dominate.
 */

/** Indices into the control block (Int32Array). */
export const CONTROL = {
  /** Increased by the leader to start a step; helpers wait on it. */
  epoch: 0,
  barrierCount: 1,
  barrierGeneration: 2,
  /** Threads asleep on barrierGeneration or epoch: lets the fast path skip Atomics.notify. */
  sleepers: 3,
  /** Parameters of the step. */
  rows: 4,
  outputs: 5,
  command: 6,
} as const;
export const CONTROL_BYTES = 64;
export const COMMAND = { step: 1, exit: 2 } as const;

/**
 * Spins before sleeping, about 50-100 microseconds: longer than any wait between two operations of a step on a quiet
 * machine, short enough to give the core away when the machine is busy.
 */
const SPINS = 20_000;

/** Waits until `control[index]` differs from `value`. Never on the main thread. */
export function waitWhile(control: Int32Array, index: number, value: number): void {
  for (let i = 0; i < SPINS; i++) {
    if (Atomics.load(control, index) !== value) return;
  }
  Atomics.add(control, CONTROL.sleepers, 1);
  while (Atomics.load(control, index) === value) Atomics.wait(control, index, value);
  Atomics.sub(control, CONTROL.sleepers, 1);
}

/** Changes `control[index]` by one and wakes whoever sleeps on it. */
export function advance(control: Int32Array, index: number): void {
  Atomics.add(control, index, 1);
  if (Atomics.load(control, CONTROL.sleepers) > 0) Atomics.notify(control, index);
}

/** Returns when all `threads` have called it. */
export function barrier(control: Int32Array, threads: number): void {
  if (threads === 1) return;
  const generation = Atomics.load(control, CONTROL.barrierGeneration);
  if (Atomics.add(control, CONTROL.barrierCount, 1) === threads - 1) {
    Atomics.store(control, CONTROL.barrierCount, 0);
    advance(control, CONTROL.barrierGeneration);
  } else {
    waitWhile(control, CONTROL.barrierGeneration, generation);
  }
}
