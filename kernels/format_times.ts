/**
 * How long this machine takes for a weight of each quantised format: what a budget of milliseconds is spent in. One
 * thread; decode with weights from memory, batches with weights in the cache, each format by its faster module.
 */
import { LINEAR_MODULES } from "./manifest.ts";
import type { TileWork } from "./load.ts";
import { measureVariants, roundProducts } from "./tune.ts";

/** Nanoseconds of a weight and token, by format's name (layout.ts `formatName`) and work. */
export type FormatTimes = Readonly<Record<string, Readonly<Record<TileWork, number>>>>;

/** More than the last-level caches of today: decode reads its weights once a token. */
const STREAM_BYTES = 64 << 20;
/** For V8's better code of one format; it is not always seen to come, when memory binds. */
const WARM_UP_MS = 100;

/**
 * About 5 s for all formats.
 *
 * @param options.streamBytes weights that decode reads; tests take less
 */
export async function measureFormatTimes(
  { streamBytes = STREAM_BYTES, formats = quantisedFormats() }: {
    readonly streamBytes?: number;
    readonly formats?: readonly string[];
  } = {},
): Promise<FormatTimes> {
  const times: Record<string, Record<TileWork, number>> = {};
  for (const name of formats) {
    const ofFormat = async (work: TileWork) => {
      const modules = LINEAR_MODULES.filter((module) => module.name === name);
      const options = { streamBytes, late: true };
      const found = await measureVariants(modules, work, performance.now() + WARM_UP_MS, options);
      return Math.min(...found!) / roundProducts(modules[0], work);
    };
    times[name] = { decode: await ofFormat("decode"), batched: await ofFormat("batched") };
  }
  return times;
}

const quantisedFormats = (): string[] =>
  [...new Set(LINEAR_MODULES.map(({ name }) => name))].filter((name) => name !== "f32");
