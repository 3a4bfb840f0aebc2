/**
 * The LoRA adapters of one engine as its owner's thread sees them: packed into the memories of the segments, known by name,
 * counted, freed when no request uses them any more. Threads find them by slot in tables that stand ready
 * (adapter_places.ts), so that nobody is told of one but by the requests that name it.
 */
import { OatmillError } from "../errors.ts";
import { packedBytes, type Shape2 } from "../kernels/layout.ts";
import { type LoraAdapter, type LoraLayer, MAX_LORA_RANK } from "../models/adapter.ts";
import { packDenseTensor } from "../models/pack_dense.ts";
import type { AdaptableLayer, PlannedAdapters } from "../models/plan.ts";
import { ENTRY_WORDS, entryOf, MAX_ADAPTERS } from "./adapter_places.ts";
import { Extents } from "./extents.ts";
import { MAX_MEMORY_BYTES } from "./memory_map.ts";
import type { SegmentMap } from "./segment_map.ts";

/** Default bound on the adapters' weights: rank 16 on all layers of a 7B model takes 40 MB in int8. */
const DEFAULT_BYTES = 1 << 30;
const PAGE = 65536;
const ALIGN = 64;

/** How a request names its adapter to the leader. */
export interface AdapterUse {
  readonly slot: number;
  /** 1, 2, 3 ...: never given twice, so that what was computed with one adapter is taken for no other's. */
  readonly serial: number;
}

export interface AdaptersOptions {
  readonly plan: PlannedAdapters;
  readonly segments: readonly SegmentMap[];
  readonly memories: readonly WebAssembly.Memory[];
  /** Most bytes of all adapters together. */
  readonly bytes?: number;
  /** Most bytes of one memory. */
  readonly memoryLimitBytes?: number;
  /** Bytes that the machine can still give; null when unknown. */
  readonly availableBytes: () => number | null;
  /** Asks the leader to say when nothing runs with a slot's adapter; `dropped()` is the answer. */
  readonly drop: (slot: number) => void;
}

/** A layer with its number. */
interface NumberedLayer extends AdaptableLayer {
  readonly index: number;
}
/** A packed layer's place behind the beginning of its adapter. */
interface PlacedLayer extends NumberedLayer {
  readonly lora: LoraLayer;
  readonly A: number;
  readonly B: number;
}
/** What an adapter has in one segment. */
interface Share {
  readonly layers: readonly PlacedLayer[];
  readonly bytes: number;
}
interface Added extends AdapterUse {
  readonly name: string;
  readonly bytes: number;
  /** By segment. */
  readonly places: readonly { readonly address: number; readonly bytes: number }[];
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const alignUp = (n: number): number => Math.ceil(n / ALIGN) * ALIGN;

export class Adapters {
  readonly #o: AdaptersOptions;
  readonly #layers: ReadonlyMap<string, NumberedLayer>;
  readonly #extents: readonly Extents[];
  readonly #free = Array.from({ length: MAX_ADAPTERS }, (_, i) => MAX_ADAPTERS - 1 - i);
  /** Names in use; null: it is being added. */
  readonly #byName = new Map<string, Added | null>();
  /** By slot: removed, but some request may still use them. */
  readonly #leaving = new Map<number, { readonly added: Added; readonly gone: () => void }>();
  #serial = 0;
  #bytes = 0;
  #closed = false;

  constructor(options: AdaptersOptions) {
    this.#o = options;
    this.#layers = new Map(options.plan.layers.map((layer, index) => [layer.name, { ...layer, index }]));
    this.#extents = options.memories.map(({ buffer }) => new Extents(buffer.byteLength));
  }

  names(): string[] {
    return [...this.#byName].flatMap(([name, added]) => added ? [name] : []);
  }

  /** Bytes by which the memories have grown: they never shrink, and what was freed is used again. */
  get grownBytes(): number {
    return this.#extents.reduce((n, { begin }, i) => n + this.#o.memories[i].buffer.byteLength - begin, 0);
  }

  /** @throws {OatmillError} model_not_found */
  use(name: string): AdapterUse {
    const added = this.#byName.get(name);
    if (!added) throw notFound(name);
    return { slot: added.slot, serial: added.serial };
  }

  /** Packs layer by layer and lets the thread do other things between them. See `Engine.addAdapter()`. */
  async add(name: string, adapter: LoraAdapter): Promise<void> {
    if (this.#byName.has(name)) {
      throw new OatmillError("conflict", `The model already has an adapter "${name}"`, "name");
    }
    for (const [layer, lora] of adapter.layers) this.#check(name, layer, lora);
    const shares = this.#o.segments.map((segment) => this.#shareOf(segment, adapter));
    const added = this.#reserve(name, shares);
    this.#byName.set(name, null);
    try {
      for (const [i, share] of shares.entries()) await this.#write(i, added, share);
    } catch (error) {
      this.#byName.delete(name);
      this.#freeAll(added);
      throw error;
    }
    this.#byName.set(name, added);
  }

  /** From now on nobody finds it. @returns when the last request that uses it has ended and its memory is free */
  async remove(name: string): Promise<void> {
    const added = this.#byName.get(name);
    if (!added) throw notFound(name);
    this.#byName.delete(name);
    if (this.#closed) return;
    await new Promise<void>((gone) => {
      this.#leaving.set(added.slot, { added, gone });
      this.#o.drop(added.slot);
    });
  }

  /** The leader has nothing any more that uses the slot. */
  dropped(slot: number): void {
    const leaving = this.#leaving.get(slot);
    if (!leaving) return;
    this.#leaving.delete(slot);
    this.#freeAll(leaving.added);
    leaving.gone();
  }

  /** Nothing runs any more. */
  close(): void {
    this.#closed = true;
    for (const slot of [...this.#leaving.keys()]) this.dropped(slot);
  }

  #check(name: string, layer: string, { rank, A, B }: LoraLayer): void {
    const fail = (why: string): never => {
      throw new OatmillError("invalid_request", `Cannot add adapter "${name}": ${why}`, "adapter");
    };
    const known = this.#layers.get(layer);
    if (!known) {
      if (this.#layers.size === 0) return fail("the model is no decoder");
      if (layer.includes(".experts.")) return fail(`layer "${layer}" is an expert's, which take no adapters`);
      return fail(`the model has no layer "${layer}"`);
    }
    if (!(Number.isInteger(rank) && rank >= 1 && rank <= MAX_LORA_RANK)) {
      return fail(`layer "${layer}" has rank ${rank}, must be 1 to ${MAX_LORA_RANK}`);
    }
    const [dOut, dIn] = known.shape;
    if (A.length !== rank * dIn || B.length !== dOut * rank) {
      return fail(
        `layer "${layer}" has ${A.length} values in A and ${B.length} in B, must be [${rank},${dIn}] and ` +
          `[${dOut},${rank}]`,
      );
    }
  }

  /** The adapter's layers in this segment, one after the other. */
  #shareOf({ adapters }: SegmentMap, adapter: LoraAdapter): Share {
    const layers: PlacedLayer[] = [];
    let bytes = 0;
    const place = (shape: Shape2): number => {
      const at = bytes;
      bytes = alignUp(bytes + packedBytes(this.#o.plan.format, shape));
      return at;
    };
    for (const [name, lora] of adapter.layers) {
      const layer = this.#layers.get(name)!;
      if (!adapters?.inside.includes(layer.index)) continue;
      const [dOut, dIn] = layer.shape;
      layers.push({ ...layer, lora, A: place([lora.rank, dIn]), B: place([dOut, lora.rank]) });
    }
    return { layers, bytes };
  }

  /** @throws {OatmillError} conflict, insufficient_memory */
  #reserve(name: string, shares: readonly Share[]): Added {
    const { bytes: most = DEFAULT_BYTES, availableBytes, memoryLimitBytes = MAX_MEMORY_BYTES } = this.#o;
    const bytes = shares.reduce((n, share) => n + share.bytes, 0);
    const fail = (code: "conflict" | "insufficient_memory", why: string): never => {
      throw new OatmillError(
        code,
        `Cannot add adapter "${name}": ${why}. Remove another one first`,
        "adapter",
      );
    };
    if (this.#free.length === 0) return fail("conflict", `the model has ${MAX_ADAPTERS}, the most it takes`);
    if (this.#bytes + bytes > most) {
      return fail(
        "insufficient_memory",
        `it needs ${mebibytes(bytes)}, and adapters have ${mebibytes(this.#bytes)} of ${mebibytes(most)}`,
      );
    }
    const ends = this.#extents.map((extents, i) => extents.find(shares[i].bytes).end);
    const grows = ends.reduce((n, end, i) => n + Math.max(0, end - this.#o.memories[i].buffer.byteLength), 0);
    const available = availableBytes();
    if (ends.some((end) => end > memoryLimitBytes) || (available !== null && grows > available)) {
      const left = available === null ? "" : `, the machine has ${mebibytes(available)} left`;
      return fail(
        "insufficient_memory",
        `it needs ${mebibytes(bytes)}; a memory holds ${mebibytes(memoryLimitBytes)}${left}`,
      );
    }
    const places = shares.map((share, i) => ({
      address: this.#extents[i].take(share.bytes),
      bytes: share.bytes,
    }));
    this.#bytes += bytes;
    return { name, slot: this.#free.pop()!, serial: ++this.#serial, bytes, places };
  }

  /** Fills one segment: weights, then the slot's table. */
  async #write(segment: number, { name, slot, places: all }: Added, { layers, bytes }: Share): Promise<void> {
    const memory = this.#o.memories[segment], places = this.#o.segments[segment].adapters;
    const { address } = all[segment];
    if (!places) return;
    grow(memory, address + bytes);
    const words = new Uint32Array(memory.buffer);
    const table = entryOf(places, slot, 0);
    words.fill(0, table, table + places.layers * ENTRY_WORDS);
    for (const { name: layer, index, shape: [dOut, dIn], lora, A, B } of layers) {
      for (
        const [at, values, shape] of [[A, lora.A, [lora.rank, dIn]], [B, lora.B, [dOut, lora.rank]]] as const
      ) {
        checkFinite(values, name, layer);
        new Uint8Array(memory.buffer).set(packDenseTensor(values, shape, places.format), address + at);
      }
      words.set([lora.rank, address + A, address + B], entryOf(places, slot, index));
      await new Promise((resolve) => setImmediate(resolve)); // requests come in between
    }
  }

  #freeAll({ slot, places, bytes }: Added): void {
    places.forEach((place, i) => this.#extents[i].give(place.address, place.bytes));
    this.#bytes -= bytes;
    this.#free.push(slot);
  }
}

const notFound = (name: string) =>
  new OatmillError("model_not_found", `The model has no adapter "${name}"`, "model");

function checkFinite(values: Float32Array, name: string, layer: string): void {
  if (values.every(Number.isFinite)) return;
  throw new OatmillError(
    "non_finite_weights",
    `Cannot add adapter "${name}": layer "${layer}" holds NaN or infinity`,
    "adapter",
  );
}

/**
 * Threads see it at once: their instances share the memory, and what lies behind its old end only kernels address.
 * @throws {OatmillError} insufficient_memory
 */
function grow(memory: WebAssembly.Memory, end: number): void {
  const more = end - memory.buffer.byteLength;
  if (more <= 0) return;
  try {
    memory.grow(Math.ceil(more / PAGE));
  } catch (cause) {
    const message = `Cannot grow the model's memory by ${mebibytes(more)} for an adapter`;
    throw new OatmillError("insufficient_memory", message, "adapter", { cause });
  }
}
