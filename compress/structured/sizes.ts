/**
 * The sizes that structured pruning may leave a block: whole KV groups (a KV head with its query heads), as many query
 * heads in every group (attention kernels have one group size), and FFN channels in units.
 */
import { CHUNK, WINDOW } from "../../kernels/layout.ts";
import { type BlockSizes, type LinearKind, linearShapes, type ModelSpec } from "../../models/spec.ts";

/** FFNs of fewer channels are cut in units of 16: a chunk of 64 would be more than 1/16 of them. */
const WIDE_CHANNELS = 16 * CHUNK;

/**
 * Channels go in units, so that rows of `down` end with whole chunks of 64 columns and those of `gate` and `up` are whole
 * panels; of small FFNs in units of 16, whose last chunk is padded in the activations alone (kernels/layout.ts).
 */
export const channelUnit = (intermediateSize: number): number =>
  intermediateSize >= WIDE_CHANNELS ? CHUNK : Math.min(WINDOW, intermediateSize);

/** The same model with every block of these sizes. */
export const withSizes = (spec: ModelSpec, { heads, kvHeads, intermediateSize }: BlockSizes): ModelSpec => ({
  ...spec,
  attention: { ...spec.attention, heads, kvHeads },
  mlp: { ...spec.mlp, intermediateSize },
});

/** Weights of a block's linear layers. */
export const blockParameters = (spec: ModelSpec): number =>
  Object.values(linearShapes(spec)).reduce((sum, shape) => sum + shape![0] * shape![1], 0);

/** Counts from n down to 1 unit; n alone when none may go. */
const countsDown = (n: number, unit: number, may: boolean): number[] =>
  may
    ? [n, ...Array.from({ length: Math.ceil(n / unit) - 1 }, (_, i) => (Math.ceil(n / unit) - 1 - i) * unit)]
    : [n];

/**
 * Every size a block may get, its own first. Layers named in `dense` keep their shape: no query head goes when that is q or
 * o, no KV head when it is k or v as well, no channel when it is one of the FFN's. One group, one query head and one unit of
 * channels always stay.
 */
export function legalSizes(spec: ModelSpec, dense: readonly LinearKind[]): BlockSizes[] {
  const { heads, kvHeads } = spec.attention, { intermediateSize } = spec.mlp;
  const free = (...names: LinearKind[]) => !names.some((name) => dense.includes(name));
  const groups = countsDown(kvHeads, 1, free("q", "k", "v", "o"));
  const groupSizes = countsDown(heads / kvHeads, 1, free("q", "o"));
  const channels = countsDown(intermediateSize, channelUnit(intermediateSize), free("gate", "up", "down"));
  return groups.flatMap((kvHeads) =>
    groupSizes.flatMap((size) =>
      channels.map((intermediateSize) => ({ heads: kvHeads * size, kvHeads, intermediateSize }))
    )
  );
}
