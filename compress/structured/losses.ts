/**
 * What a block would lose with its heads and channels, in one unit (mean squares of what `o` and `down` add to the residual
 * stream): so attention and FFN can be compared, and the budget goes where it costs least.
 */
import type { AttentionSpec } from "../../models/spec.ts";
import type { Elimination } from "./elimination.ts";

/** Channels in the order in which they should go. */
export interface ChannelLosses {
  readonly order: readonly number[];
  /** `[order.length + 1]`: what the first n of them cost together. */
  readonly losses: readonly number[];
}

/** Heads that stay; all ascending. */
export interface HeadChoice {
  readonly heads: readonly number[];
  readonly kvHeads: readonly number[];
  readonly loss: number;
}

/** @param down the layer that reads the channels @param most how many may go */
export async function channelLosses(down: Elimination, most: number): Promise<ChannelLosses> {
  const order: number[] = [], losses = [0];
  while (order.length < most) {
    const channel = down.cheapest();
    order.push(channel);
    losses.push(losses.at(-1)! + await down.remove([channel]));
  }
  return { order, losses };
}

interface Group {
  readonly kvHead: number;
  readonly heads: readonly number[];
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** The item whose removal costs least. */
async function cheapestOf<T>(items: readonly T[], loss: (item: T) => Promise<number>): Promise<T> {
  const losses: number[] = [];
  for (const item of items) losses.push(await loss(item));
  return items[losses.indexOf(Math.min(...losses))];
}

/**
 * For each number of query heads in a group: the best ones of every group stay, and then whole groups go one by one, the
 * cheapest first.
 *
 * @param o the layer that reads the heads
 * @param options.enough whether to go on removing groups, asked with what stays
 */
export async function headChoices(
  o: Elimination,
  { heads, kvHeads, headDim }: AttentionSpec,
  { groupSizes, goOn }: {
    readonly groupSizes: readonly number[];
    readonly goOn: (heads: number, kvHeads: number) => boolean;
  },
): Promise<HeadChoice[]> {
  const columns = (of: readonly number[]) =>
    of.flatMap((head) => range(headDim).map((i) => head * headDim + i));
  const choices: HeadChoice[] = [];
  for (const size of groupSizes) {
    const left = o.copy();
    let loss = 0, groups: Group[] = [];
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const group = range(heads / kvHeads).map((i) => kvHead * (heads / kvHeads) + i);
      while (group.length > size) {
        const head = await cheapestOf(group, (h) => left.lossOf(columns([h])));
        loss += await left.remove(columns([head]));
        group.splice(group.indexOf(head), 1);
      }
      groups.push({ kvHead, heads: group });
    }
    for (;;) {
      choices.push({ heads: groups.flatMap((g) => g.heads), kvHeads: groups.map((g) => g.kvHead), loss });
      if (groups.length === 1 || !goOn(groups.length * size, groups.length)) break;
      const group = await cheapestOf(groups, (g) => left.lossOf(columns(g.heads)));
      loss += await left.remove(columns(group.heads));
      groups = groups.filter((g) => g !== group);
    }
  }
  return choices;
}
