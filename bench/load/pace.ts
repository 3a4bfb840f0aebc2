/** Waits for a moment more exactly than a timer, whose milliseconds are whole and often one too late. */
import { setImmediate } from "node:timers";

/**
 * The last part of a wait is spent in turns of the event loop (about 10 microseconds each, in which answers are still read):
 * with timers alone requests left 1.7 ms late at the median, so 2 microseconds, at 1 ms of one core's time a request.
 */
const TURNS_MS = 1.2;
/** Shorter waits are left to the timer: turning would take a core. */
const SHORT_WAIT_MS = 10;

/** @param untilMs performance.now() to wake up at; @returns early when the signal is aborted */
export async function waitUntil(untilMs: number, signal: AbortSignal): Promise<void> {
  const waitMs = untilMs - performance.now();
  if (waitMs <= 0) return;
  if (waitMs < SHORT_WAIT_MS) return await timer(Math.ceil(waitMs), signal);
  await timer(Math.floor(waitMs - TURNS_MS), signal);
  while (performance.now() < untilMs && !signal.aborted) {
    await new Promise<void>((done) => setImmediate(done));
  }
}

function timer(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => {
    const end = () => {
      clearTimeout(id);
      signal.removeEventListener("abort", end);
      done();
    };
    const id = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}
