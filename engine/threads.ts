/**
 * How the compute threads of one engine meet: a control block in shared memory with a step counter and a barrier. Threads
 * spin briefly, then sleep: a decode step crosses up to 10 barriers a block, so a futex call at each would dominate.
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
  /** Runs of the step's rows that have LoRA adapters. */
  adapterRuns: 7,
} as const;
export const CONTROL_BYTES = 64;
export const COMMAND = { step: 1, exit: 2 } as const;

/** Spins before sleeping where that pays: about 30 microseconds, longer than most waits inside a decode step. */
const LONG_SPIN = 8_000;
const SHORT_SPIN = 50;
/** While spins are short, every so many waits spin long, to see whether it would pay again. */
const PROBE_EVERY = 32;
const FULL_TRUST = 16;

/**
 * How long a thread spins depends on what spinning brought: where something else wants the cores, the thread that is waited
 * for may itself be waiting for this very core, and every spin delays it. Trust rises when a long spin ends by itself and
 * falls when it was in vain; without trust spins are short, but for probes. (SmolLM2 decode on 2 cores, 2 threads: 198 tok/s
 * alone; beside one busy process 34 when all spins were long, 95 so; 1 thread 150 and 141.)
 */
export class Waiter {
  #trust = FULL_TRUST;
  #long = true;
  #waits = 0;

  constructor(readonly control: Int32Array) {}

  /** Waits until `control[index]` differs from `value`. Never on the main thread. */
  waitWhile(index: number, value: number): void {
    const { control } = this;
    const long = this.#long || ++this.#waits % PROBE_EVERY === 0;
    const spins = long ? LONG_SPIN : SHORT_SPIN;
    for (let i = 0; i < spins; i++) {
      if (Atomics.load(control, index) !== value) {
        if (long) this.#judge(this.#long ? 1 : 4);
        return;
      }
    }
    if (long) this.#judge(-2);
    Atomics.add(control, CONTROL.sleepers, 1);
    while (Atomics.load(control, index) === value) Atomics.wait(control, index, value);
    Atomics.sub(control, CONTROL.sleepers, 1);
  }

  #judge(change: number): void {
    this.#trust = Math.max(0, Math.min(FULL_TRUST, this.#trust + change));
    if (this.#trust === 0) this.#long = false;
    if (this.#trust === FULL_TRUST) this.#long = true;
  }

  /** Returns when all `threads` have called it. */
  barrier(threads: number): void {
    if (threads === 1) return;
    const { control } = this;
    const generation = Atomics.load(control, CONTROL.barrierGeneration);
    if (Atomics.add(control, CONTROL.barrierCount, 1) === threads - 1) {
      Atomics.store(control, CONTROL.barrierCount, 0);
      advance(control, CONTROL.barrierGeneration);
    } else {
      this.waitWhile(CONTROL.barrierGeneration, generation);
    }
  }
}

/** Changes `control[index]` by one and wakes whoever sleeps on it. */
export function advance(control: Int32Array, index: number): void {
  Atomics.add(control, index, 1);
  if (Atomics.load(control, CONTROL.sleepers) > 0) Atomics.notify(control, index);
}
