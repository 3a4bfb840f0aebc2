/**
 * Weights in huge pages. A decode step streams all weights: in pages of 4 KiB every 64 cache lines end in a walk of the
 * page table and a restart of the prefetcher (SmolLM2-135M at rate 0.5, 1 thread: 205 against 190 tok/s with nothing else
 * on the host, 195 against 150 beside busy neighbours). Where Linux gives huge pages only on request, the request is
 * madvise(2), called with the permission for it.
 */
import { openCLibrary } from "./c_library.ts";

/** Of <sys/mman.h>. */
const MADV_HUGEPAGE = 14;
/** What a huge page covers at least. */
const HUGE_PAGE_BYTES = 2 << 20;

const SYMBOLS = {
  madvise: { parameters: ["buffer", "usize", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The C library, when it may be used; opened once, never closed. */
let library: Deno.DynamicLibrary<typeof SYMBOLS> | null | undefined;

/**
 * Asks for huge pages for the first `bytes` of a memory, before anything is written there. Without the permission, on
 * another system or where the kernel has none, pages stay as they are.
 * @returns whether the kernel took the advice
 */
export function adviseHugePages(memory: WebAssembly.Memory, bytes: number): boolean {
  const whole = Math.floor(bytes / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
  if (whole === 0) return false;
  if (library === undefined) library = openCLibrary(SYMBOLS);
  if (!library) return false;
  // Cast: the type names plain buffers only; a shared one has an address just as well.
  const start = new Uint8Array(memory.buffer) as unknown as BufferSource;
  return library.symbols.madvise(start, BigInt(whole), MADV_HUGEPAGE) === 0;
}
