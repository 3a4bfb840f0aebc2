/** Which heads and channels of a block stay: of all sizes that remove about as much as asked, the one that loses least. */
import type { BlockSizes, LinearKind, ModelSpec } from "../../models/spec.ts";
import type { ChannelLosses, HeadChoice } from "./losses.ts";
import { blockParameters, channelUnit, legalSizes, withSizes } from "./sizes.ts";

/** What stays of a block; all ascending. */
export interface Kept {
  readonly sizes: BlockSizes;
  /** Query heads. */
  readonly heads: readonly number[];
  readonly kvHeads: readonly number[];
  readonly channels: readonly number[];
}

export interface PruningGoal {
  /** Weights of the block's linear layers to remove. */
  readonly target: number;
  /** Layers that keep their shapes. */
  readonly dense: readonly LinearKind[];
}

const removedWith = (spec: ModelSpec, sizes: Partial<BlockSizes>): number =>
  blockParameters(spec) -
  blockParameters(withSizes(spec, { ...spec.attention, ...spec.mlp, ...sizes }));

/** How far losses have to be known: what else goes would remove more than the target, and by more than one step. */
export interface Reach {
  readonly channels: number;
  readonly groupSizes: readonly number[];
  /** Whether a choice of so many heads leaves room for less. */
  readonly goOn: (heads: number, kvHeads: number) => boolean;
}

export function reachOf(spec: ModelSpec, { target, dense }: PruningGoal): Reach {
  const { intermediateSize } = spec.mlp, sizes = legalSizes(spec, dense);
  const least = Math.min(...sizes.map((s) => s.intermediateSize));
  const perChannel = removedWith(spec, { intermediateSize: intermediateSize - 1 });
  const wanted = Math.ceil(target / perChannel) + channelUnit(intermediateSize);
  const counts = new Set(sizes.map((s) => `${s.heads} ${s.kvHeads}`));
  return {
    channels: Math.min(intermediateSize - least, wanted),
    groupSizes: [...new Set(sizes.map((s) => s.heads / s.kvHeads))],
    goOn: (heads, kvHeads) =>
      counts.has(`${heads / kvHeads * (kvHeads - 1)} ${kvHeads - 1}`) &&
      removedWith(spec, { heads, kvHeads }) < target,
  };
}

/**
 * The target is met within half a unit of channels where channels may go and there are enough of them, else as nearly as
 * heads allow.
 */
export function chooseKept(
  spec: ModelSpec,
  { heads, channels }: { readonly heads: readonly HeadChoice[]; readonly channels: ChannelLosses },
  { target, dense }: PruningGoal,
): Kept {
  const { intermediateSize: all } = spec.mlp;
  const counts = [...new Set(legalSizes(spec, dense).map((s) => s.intermediateSize))]
    .filter((count) => all - count <= channels.order.length);
  const options = heads.flatMap((choice) =>
    counts.map((intermediateSize) => {
      const sizes = { heads: choice.heads.length, kvHeads: choice.kvHeads.length, intermediateSize };
      const distance = Math.abs(removedWith(spec, sizes) - target);
      return { sizes, choice, distance, loss: choice.loss + channels.losses[all - intermediateSize] };
    })
  );
  const nearest = Math.min(...options.map((o) => o.distance));
  const halfUnit = removedWith(spec, { intermediateSize: all - channelUnit(all) }) / 2;
  const best = options.filter((o) => o.distance <= Math.max(nearest, halfUnit))
    .reduce((a, b) => b.loss < a.loss ? b : a);
  const gone = new Set(channels.order.slice(0, all - best.sizes.intermediateSize));
  return {
    sizes: best.sizes,
    heads: best.choice.heads,
    kvHeads: best.choice.kvHeads,
    channels: Array.from({ length: all }, (_, i) => i).filter((i) => !gone.has(i)),
  };
}
