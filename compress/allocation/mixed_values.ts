/**
 * Mixed precision by outlier ratio (OWL, arXiv 2310.05175): a block with more outliers among its scores is stored in more
 * bits. Bits are spread as OWL spreads rates: b of 8 bits are what a rate of 1 - b / 8 leaves.
 */
import { type Recipe, VALUE_BITS } from "../../models/recipe.ts";
import type { CodedValues } from "../quantizers/grid.ts";
import { owlRates } from "./owl.ts";
import { chooseOptions } from "./solve.ts";

const MOST_BITS = VALUE_BITS.int8;
/** By rising bits. */
const ALL_VALUES = (Object.keys(VALUE_BITS) as CodedValues[]).sort((a, b) => VALUE_BITS[a] - VALUE_BITS[b]);
/** Loss of a bit that is left over: more than a bit too many costs, (w - b)² - (w' - b)² for w <= 8. */
const UNUSED_BIT = 2 * MOST_BITS;
/** Sums of means such as 3.3 miss whole numbers by a few ulps. */
const ROUNDING = 1e-9;

/**
 * Values of every block, as near (in squares) to the bits that OWL's rule wants as widths allow: their mean is not above
 * the one asked for, and so near below it that no block can have its next width as well. A block of a higher ratio never
 * has fewer bits; among equal ones the first have more where not all can have them.
 *
 * @param ratios outlier ratio of each block; blocks have equally many weights
 * @param options.values the widest
 */
export function mixedValues(
  ratios: readonly number[],
  { meanBits, values, lambda }: {
    readonly meanBits: number;
    readonly values: CodedValues;
    readonly lambda: number;
  },
): CodedValues[] {
  const kinds = ALL_VALUES.filter((kind) => VALUE_BITS[kind] <= VALUE_BITS[values]);
  const wanted = owlRates(ratios, { rate: 1 - meanBits / MOST_BITS, lambda })
    .map((rate) => MOST_BITS * (1 - rate));
  const options = wanted.map((bits) =>
    kinds.map((kind) => {
      const width = VALUE_BITS[kind];
      return { cost: width, loss: (width - bits) ** 2 + UNUSED_BIT * (MOST_BITS - width) };
    })
  );
  const chosen = chooseOptions(options, meanBits * ratios.length + ROUNDING)!; // 2 bits can always be paid
  chosen.sort((a, b) => b - a); // by ratio exactly, whatever the last bits of the squares say
  const found = new Array<CodedValues>(ratios.length);
  ratios.map((_, block) => block).sort((a, b) => ratios[b] - ratios[a])
    .forEach((block, rank) => found[block] = kinds[chosen[rank]]);
  return found;
}

/** The recipe's values for every block: one kind, or mixed. */
export const blockValues = (
  { values, mean_bits: meanBits, allocation: { lambda } }: Pick<
    Recipe,
    "values" | "mean_bits" | "allocation"
  >,
  { blocks, ratios }: { readonly blocks: number; readonly ratios: readonly number[] | null },
): Recipe["values"][] =>
  values === "f32" || meanBits === null || !ratios
    ? new Array<Recipe["values"]>(blocks).fill(values)
    : mixedValues(ratios, { meanBits, values, lambda });
