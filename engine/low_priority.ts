/**
 * Work that must not slow down serving: its threads run when nothing else wants their core. Called in the first thread of
 * such work, before it starts others: Linux gives a thread the priority of the one that made it.
 */
import { openCLibrary } from "./c_library.ts";

/** Of <sys/resource.h>. */
const PRIO_PROCESS = 0;
/** setpriority(2) on Linux: the calling thread, not its process. */
const THIS_THREAD = 0;
/** The lowest priority: beside a busy thread of the usual one, 1.5 % of a core. */
export const LOWEST_PRIORITY = 19;

const SYMBOLS = {
  setpriority: { parameters: ["i32", "u32", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/**
 * Gives the calling thread, and those that it starts from now on, the lowest priority.
 * @returns false without the permission for the C library and on other systems than Linux: the priority stays as it is
 */
export function lowerThreadPriority(): boolean {
  const library = openCLibrary(SYMBOLS);
  if (!library) return false;
  const answer = library.symbols.setpriority(PRIO_PROCESS, THIS_THREAD, LOWEST_PRIORITY);
  library.close();
  return answer === 0;
}
