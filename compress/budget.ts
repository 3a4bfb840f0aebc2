/** How many parameters a layer may keep, and how they are shared between S and L. Counts, no weights. */
import { CHUNK, finestSlots, packedBytes, type Shape2 } from "../kernels/layout.ts";
import { type Groups, patternGroups, type Recipe } from "../models/recipe.ts";

/** Slots a chunk of 64 columns would need to be dense. */
export const DENSE_WINDOWS = CHUNK / 4;
/** Fewer windows cannot reach every column's neighbourhood (view A alone has 4): preferred lower bound. */
const PREFERRED_WINDOWS = 4;

/**
 * Rank of L for one layer, so that L = U V takes the share κ of the kept parameters:
 * r = int(κ (1 - ρ) dOut dIn / (dOut + dIn)). OATS (arXiv 2409.13652), the rank ratio.
 *
 * @param shape `[dOut, dIn]` of W
 * @param rate ρ in [0, 1); 0 removes nothing
 * @param rankRatio κ in [0, 1]; 0 means no L
 * @returns columns of U `[dOut, r]`, rows of V `[r, dIn]`; 0 when the layer is too small
 * @throws {RangeError} when ρ or κ lies outside its range
 */
export function lowRankRank([dOut, dIn]: Shape2, rate: number, rankRatio: number): number {
  checkShares(rate, rankRatio);
  return Math.floor(rankRatio * (1 - rate) * dOut * dIn / (dOut + dIn) + ROUNDING);
}

/** Products such as 0.25 x 0.7 x 2 miss whole numbers by a few ulps; without it int() would drop one. */
const ROUNDING = 1e-9;

/**
 * Entries of S kept in every row: dIn - int(dIn (1 - (1 - κ)(1 - ρ))), OATS.
 *
 * @throws {RangeError} when ρ or κ lies outside its range
 */
export function keptPerRow(dIn: number, rate: number, rankRatio: number): number {
  checkShares(rate, rankRatio);
  return dIn - Math.floor(dIn * (1 - (1 - rankRatio) * (1 - rate)) + ROUNDING);
}

function checkShares(rate: number, rankRatio: number): void {
  if (!(rate >= 0 && rate < 1)) throw new RangeError(`Rate is ${rate}, must lie in [0, 1)`);
  if (!(rankRatio >= 0 && rankRatio <= 1)) {
    throw new RangeError(`Rank ratio is ${rankRatio}, must lie in [0, 1]`);
  }
}

export interface LayerBudget {
  /** Entries of S kept in every row. */
  readonly kept: number;
  readonly rank: number;
  /** Windows of each chunk; null for the other patterns. */
  readonly windows: number | null;
  /** Of every M consecutive entries of a row S keeps N, with an N:M pattern. */
  readonly groups?: Groups;
}

/**
 * For windows the kept share is rounded to a whole number K of windows first; the rank then absorbs the rounding, so
 * that the layer's rate stays what it should be: K/16 + r (dOut + dIn) / (dOut dIn) = 1 - ρ. Without L nothing can absorb
 * it: K is rounded down and the rate is up to 1/16 higher (at ρ above 15/16, where K stays 1, lower).
 */
export function layerBudget(
  shape: Shape2,
  rate: number,
  { rankRatio, pattern }: { readonly rankRatio: number; readonly pattern: Recipe["pattern"] },
): LayerBudget {
  const groups = patternGroups(pattern);
  if (groups) return groupBudget(shape, rate, { rankRatio, groups });
  const [dOut, dIn] = shape;
  if (pattern === "unstructured") {
    return {
      kept: keptPerRow(dIn, rate, rankRatio),
      rank: lowRankRank(shape, rate, rankRatio),
      windows: null,
    };
  }
  checkShares(rate, rankRatio);
  const windows = windowCount(rate, rankRatio);
  const rest = Math.max(0, 1 - rate - windows / DENSE_WINDOWS);
  const rank = rankRatio === 0 ? 0 : Math.floor(rest * dOut * dIn / (dOut + dIn) + ROUNDING);
  return { kept: Math.min(dIn, Math.round(dIn * windows / DENSE_WINDOWS)), rank, windows };
}

/**
 * Without L the rate says N (what OWL spreads over the blocks). With L it is the pattern's N as far as the rate allows, and
 * L takes the rest: N/M + r (dOut + dIn) / (dOut dIn) = 1 - ρ.
 */
function groupBudget(
  shape: Shape2,
  rate: number,
  { rankRatio, groups: { n, m } }: { readonly rankRatio: number; readonly groups: Groups },
): LayerBudget {
  checkShares(rate, rankRatio);
  const [dOut, dIn] = shape;
  if (rankRatio === 0) return groupsOnly(dIn, { n: Math.max(1, Math.round(m * (1 - rate))), m });
  const kept = rankRatio === 1 ? 0 : Math.min(n, Math.floor(m * (1 - rate) + ROUNDING));
  const rest = Math.max(0, 1 - rate - kept / m);
  return {
    ...groupsOnly(dIn, { n: kept, m }),
    rank: Math.floor(rest * dOut * dIn / (dOut + dIn) + ROUNDING),
  };
}

function groupsOnly(dIn: number, groups: Groups): LayerBudget {
  const { n, m } = groups;
  return { kept: Math.floor(dIn / m) * n + keptOfGroup(dIn % m, groups), rank: 0, windows: null, groups };
}

/** Entries kept of a group of `size` columns: N of M, a share of them where the row ends within a group. */
export const keptOfGroup = (size: number, { n, m }: Groups): number => Math.round(n * size / m);

/** K nearest to the share that S should keep, within what ρ allows; κ = 1 means no S at all. */
function windowCount(rate: number, rankRatio: number): number {
  if (rankRatio === 1) return 0;
  const most = Math.floor(DENSE_WINDOWS * (1 - rate) + ROUNDING);
  const nearest = Math.round(DENSE_WINDOWS * (1 - rate) * (1 - rankRatio));
  return Math.max(1, Math.min(most, Math.max(nearest, PREFERRED_WINDOWS)));
}

/** Packed bytes of a budget: S as windows (or none) and both int8 factors of L. */
export function budgetBytes(
  shape: Shape2,
  { rank, windows }: { readonly rank: number; readonly windows: number },
  { bits, blockChunks }: { readonly bits: 4 | 8; readonly blockChunks: number },
): number {
  const [dOut, dIn] = shape;
  const sparse = windows >= DENSE_WINDOWS
    ? packedBytes({ kind: bits === 8 ? "q8" : "q4" }, shape)
    : packedBytes({ kind: "windows", ...finestSlots(Math.max(1, windows)), bits, blockChunks }, shape);
  if (rank === 0) return sparse;
  return sparse + packedBytes({ kind: "q8" }, [dOut, rank]) + packedBytes({ kind: "q8" }, [rank, dIn]);
}
