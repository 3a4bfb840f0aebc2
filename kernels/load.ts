/**
 * From generated modules to callable kernels. The main thread compiles (`loadKernelModules`) and probes the machine
 * (`probeEncoding`); modules, memory and encoding go to the workers by postMessage, and each binds its own instances.
 */

import {
  type ActivationEncoding,
  type AttentionKernels,
  type BaseKernels,
  CONSTS_BYTES,
  type LinearKernel,
  TILE_SIZES,
  type TileSize,
} from "./abi.ts";
import { KV_FORMATS, type KvFormat } from "./kv_layout.ts";
import { ATTENTION_MODULES, LINEAR_MODULES, type LinearModule } from "./manifest.ts";

/** The base module; the batched functions by tile size. */
export interface BoundBaseKernels extends Omit<BaseKernels, "quantize" | "interleave"> {
  readonly quantize: Readonly<Record<TileSize, BaseKernels["quantize"]>>;
  readonly interleave: Readonly<Record<TileSize, BaseKernels["interleave"]>>;
}

export interface Kernels {
  readonly base: BoundBaseKernels;
  /** @param name of a loaded linear module, see `formatName()` @throws {RangeError} when it was not loaded */
  linear(name: string, tileSize: TileSize): LinearKernel;
  /** @throws {RangeError} when the format's module (ATTENTION_MODULES) was not loaded */
  attention(format: KvFormat): AttentionKernels;
}

/** Bytes of one WebAssembly page. */
const PAGE = 65536;
/** 4 GiB: the most a 32-bit memory can hold, and what the generated modules declare. */
const MAX_PAGES = 65536;

/** Shared memory of at least `bytes`, able to grow to 4 GiB. */
export function createMemory(bytes: number): WebAssembly.Memory {
  const initial = Math.max(1, Math.ceil(bytes / PAGE));
  if (initial > MAX_PAGES) {
    throw new RangeError(`Cannot create a memory of ${bytes} bytes: at most ${MAX_PAGES * PAGE}`);
  }
  return new WebAssembly.Memory({ initial, maximum: MAX_PAGES, shared: true });
}

/** Hash of the source that a generated module was made from. @param file its name in the manifest */
export async function readSourceHash(file: string): Promise<string> {
  const sidecar = JSON.parse(await Deno.readTextFile(new URL(`./gen/${file}.json`, import.meta.url)));
  return sidecar.sourceSha256;
}

/** Which tiles a variant is chosen for: those of one row, or all larger ones. */
export type TileWork = "decode" | "batched";
export const tileWork = (size: number): TileWork => size === 1 ? "decode" : "batched";

/** Variants (manifest.ts) to load, by format; a format that is not named has its first one. See `tune()`. */
export type KernelChoice = Readonly<Record<string, Readonly<Record<TileWork, string>>>>;

/** @throws {RangeError} for a format that the manifest does not list */
export function chosenModule(name: string, work: TileWork, choice: KernelChoice): LinearModule {
  const modules = LINEAR_MODULES.filter((module) => module.name === name);
  if (modules.length === 0) throw new RangeError(`Cannot find weight format "${name}" in the manifest`);
  return modules.find(({ variant }) => variant === choice[name]?.[work]) ?? modules[0];
}

/** Bytes of a generated module. @param file its name in the manifest */
export const readModule = (file: string): Promise<Uint8Array<ArrayBuffer>> =>
  Deno.readFile(new URL(`./gen/${file}.wasm`, import.meta.url));

/** Key of a format's module for tiles of one row, where it is another than for the larger ones. */
const decodeKey = (name: string): string => `${name} decode`;

/** Compiles modules by name (manifest.ts). Main thread; modules can be posted to workers. */
export async function loadKernelModules(
  names: readonly string[],
  choice: KernelChoice = {},
): Promise<Map<string, WebAssembly.Module>> {
  const linear = new Set(LINEAR_MODULES.map((module) => module.name));
  const files = [...new Set(names)].flatMap((name): [string, string][] => {
    if (!linear.has(name)) return [[name, name]];
    const batched = chosenModule(name, "batched", choice).file;
    const decode = chosenModule(name, "decode", choice).file;
    return [[name, batched], ...(decode === batched ? [] : [[decodeKey(name), decode] as [string, string]])];
  });
  const load = async (
    [key, file]: [string, string],
  ): Promise<[string, WebAssembly.Module]> => [key, await WebAssembly.compile(await readModule(file))];
  return new Map(await Promise.all(files.map(load)));
}

// The generator fixes the exports' types: a module that lacks one fails the oracle tests.
const instantiate = (module: WebAssembly.Module, memory: WebAssembly.Memory): Record<string, unknown> =>
  new WebAssembly.Instance(module, { env: { memory } }).exports;

function bindBase(module: WebAssembly.Module, memory: WebAssembly.Memory): BoundBaseKernels {
  const exports = instantiate(module, memory);
  const bySize = (name: string) => Object.fromEntries(TILE_SIZES.map((b) => [b, exports[`${name}_b${b}`]]));
  // Cast: names and signatures are those of templates/, see above.
  return {
    ...exports,
    quantize: bySize("quantize"),
    interleave: bySize("interleave"),
  } as unknown as BoundBaseKernels;
}

/** Instances of the loaded modules on one memory; `modules` must hold "base". Any thread. */
export function bindKernels(
  modules: ReadonlyMap<string, WebAssembly.Module>,
  memory: WebAssembly.Memory,
): Kernels {
  const baseModule = modules.get("base");
  if (!baseModule) {
    throw new RangeError(`Cannot bind kernels: module "base" is not among ${[...modules.keys()]}`);
  }
  const linear = new Map<string, LinearKernel>();
  for (const name of new Set(LINEAR_MODULES.map((module) => module.name))) {
    const module = modules.get(name);
    if (!module) continue;
    const batched = instantiate(module, memory);
    const decodeModule = modules.get(decodeKey(name));
    const decode = decodeModule ? instantiate(decodeModule, memory) : batched;
    for (const b of TILE_SIZES) {
      const exports = tileWork(b) === "decode" ? decode : batched;
      linear.set(`${name} ${b}`, exports[`mv_b${b}`] as LinearKernel);
    }
  }
  const attention = new Map(KV_FORMATS.flatMap((format) => {
    const module = modules.get(ATTENTION_MODULES[format].name);
    return module ? [[format, instantiate(module, memory) as unknown as AttentionKernels] as const] : [];
  }));
  return {
    base: bindBase(baseModule, memory),
    attention(format) {
      const found = attention.get(format);
      if (!found) throw new RangeError(`Cannot find attention for "${format}" KV: not loaded`);
      return found;
    },
    linear(name, tileSize) {
      const kernel = linear.get(`${name} ${tileSize}`);
      if (!kernel) {
        throw new RangeError(`Cannot find linear kernel "${name}" for ${tileSize} rows: not loaded`);
      }
      return kernel;
    },
  };
}

/** The encodings by offset; the last is read alike by every machine. */
export const ENCODINGS = {
  128: { offset: 128, maxCode: 127 },
  0: { offset: 0, maxCode: 127 },
  64: { offset: 64, maxCode: 63 },
} as const satisfies Record<number, ActivationEncoding>;

type Probe = (w: number, x: number, out: number) => void;

/** Weight and activation bytes whose products tell unsigned from signed; the first stays in range in i16 pairs. */
const PROBES: readonly (readonly [number, number])[] = [[-63, 255], [63, 255], [-8, 128], [7, 200], [
  -1,
  129,
]];

/**
 * How this machine reads activation bytes in both relaxed dot products: unsigned (x64), signed (ARM), or neither
 * surely: then 7 bits, which read the same both ways.
 */
export async function probeEncoding(): Promise<ActivationEncoding> {
  const memory = createMemory(PAGE);
  const modules = await loadKernelModules(["probe"]);
  const { probe_i16, probe_i32 } = instantiate(modules.get("probe")!, memory) as Record<string, Probe>;
  const w = new Int8Array(memory.buffer, 0, 16);
  const x = new Uint8Array(memory.buffer, 16, 16);
  const sums16 = new Int16Array(memory.buffer, 32, 8);
  const sums32 = new Int32Array(memory.buffer, 32, 4);
  const readsAs = (value: (byte: number) => number) =>
    PROBES.every(([weight, byte]) => {
      w.fill(weight);
      x.fill(byte);
      const product = weight * value(byte);
      probe_i16(0, 16, 32);
      const narrow = sums16.every((sum) => sum === 2 * product);
      probe_i32(0, 16, 32);
      return narrow && sums32.every((sum) => sum === 4 * product);
    });
  if (readsAs((byte) => byte)) return ENCODINGS[128];
  if (readsAs((byte) => byte << 24 >> 24)) return ENCODINGS[0];
  return ENCODINGS[64];
}

/**
 * Fills the table kernels take as `consts` (CONSTS_BYTES bytes at `ptr`): at 0 the 4-bit codebook (nibble - 8), at 16
 * nibble masks, at 32 zeros, at 48 i16 ones, at 64 i16 -offset, at 80 offset bytes, at 96 the largest code as f32.
 */
export function writeConstants(memory: WebAssembly.Memory, ptr: number, encoding: ActivationEncoding): void {
  const bytes = new DataView(memory.buffer, ptr, CONSTS_BYTES);
  for (let i = 0; i < 16; i++) {
    bytes.setInt8(i, i - 8);
    bytes.setUint8(16 + i, 15);
    bytes.setUint8(32 + i, 0);
    bytes.setUint8(80 + i, encoding.offset);
  }
  for (let i = 0; i < 8; i++) {
    bytes.setInt16(48 + 2 * i, 1, true);
    bytes.setInt16(64 + 2 * i, -encoding.offset, true);
  }
  bytes.setFloat32(96, encoding.maxCode, true);
}
