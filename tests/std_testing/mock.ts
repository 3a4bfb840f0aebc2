/** Local stand-in for `@std/testing/mock`: spies that record their calls. */
// deno-lint-ignore no-explicit-any -- a spy wraps functions of every signature
type AnyFn = (...args: any[]) => any;
export interface SpyCall {
  args: unknown[];
  returned?: unknown;
  error?: unknown;
}
export type Spy<F extends AnyFn> = F & { calls: SpyCall[] };

/** Wraps `fn` (or nothing) and records every call. */
export function spy<F extends AnyFn>(fn?: F): Spy<F> {
  const calls: SpyCall[] = [];
  const wrapped = ((...args: unknown[]) => {
    try {
      const returned = fn?.(...args);
      calls.push({ args, returned });
      return returned;
    } catch (error) {
      calls.push({ args, error });
      throw error;
    }
  }) as Spy<F>;
  wrapped.calls = calls;
  return wrapped;
}
/** Throws unless the spy was called exactly `expected` times. */
export function assertSpyCalls(s: { calls: SpyCall[] }, expected: number): void {
  if (s.calls.length !== expected) throw new Error(`Expected ${expected} calls, got ${s.calls.length}`);
}
