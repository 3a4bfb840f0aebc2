/** Which variant of the linear modules is faster on this machine. Main thread, before workers start. */

import { Arena } from "./arena.ts";
import { CONSTS_BYTES } from "./abi.ts";
import { formatArgument, packedBytes, type Shape2, type WeightFormat } from "./layout.ts";
import { type AccumulateChoice, bindKernels, ENCODINGS, loadKernelModules, writeConstants } from "./load.ts";

/** Small enough for the second-level cache, so that arithmetic decides. */
const SHAPE: Shape2 = [512, 512];
const BATCH = 4;
/** V8 compiles a hot function within the first of these runs; each takes about 30 us. */
const WARM_UP = 100;
const RUNS = 30;

/** Best milliseconds of one variant. */
async function measure(
  format: WeightFormat & { kind: "q8" | "q4" },
  choice: AccumulateChoice,
): Promise<number> {
  const [dOut, dIn] = SHAPE;
  const arena = new Arena(1 << 20);
  const kernels = bindKernels(await loadKernelModules(["base", format.kind], choice), arena.memory);
  const kernel = kernels.linear(format.kind, BATCH);
  const consts = arena.allocate(CONSTS_BYTES);
  writeConstants(arena.memory, consts, ENCODINGS[64]);
  const [w, x, xs] = [packedBytes(format, SHAPE), BATCH * dIn, BATCH * dIn].map((bytes) =>
    arena.allocate(bytes)
  );
  const y = arena.allocate(BATCH * dOut * 4);
  let best = Infinity;
  for (let i = 0; i < WARM_UP + RUNS; i++) {
    const start = performance.now();
    kernel(w, x, x, xs, y, dOut, dOut / 4, dIn / 64, formatArgument(format, dIn), 0, consts);
    if (i >= WARM_UP) best = Math.min(best, performance.now() - start);
  }
  return best;
}

/** Measures dense kernels of both variants (about 20 ms in all): the inner steps of window kernels are the same. */
export async function chooseAccumulate(): Promise<AccumulateChoice> {
  const choose = async (kind: "q8" | "q4") => {
    const i16 = await measure({ kind }, { 4: "i16", 8: "i16" });
    const i32 = await measure({ kind }, { 4: "i32", 8: "i32" });
    return i32 < i16 ? "i32" : "i16";
  };
  return { 4: await choose("q4"), 8: await choose("q8") };
}
