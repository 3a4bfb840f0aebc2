/** The one file that knows @mlc-ai/web-xgrammar. In a worker only: the package asks for `location`. */
import type * as XGrammar from "@mlc-ai/web-xgrammar";

/** What it prints before it aborts: the place in its sources, then the reason. */
const FATAL = /^\[FATAL\] \S+?:\d+: (?:Check failed: .*? is false: )?/;
let lastReason = "";

/** Loads it; the package is a script that leaves its exports in the global scope. */
export async function loadXGrammar(): Promise<typeof XGrammar> {
  const { error } = console;
  console.error = (...args: unknown[]) => {
    const line = args.map(String).join(" ");
    if (FATAL.test(line)) lastReason = line.replace(FATAL, "");
    else if (!line.startsWith("Aborted(")) error(...args);
  };
  await import("@mlc-ai/web-xgrammar");
  return (globalThis as unknown as { xgrammar: typeof XGrammar }).xgrammar; // not in the types
}

/** Why it aborted: it traps without a message of its own when, for example, its stack is full. */
export const abortReason = (): string => lastReason || "it is too large or nested too deeply";
