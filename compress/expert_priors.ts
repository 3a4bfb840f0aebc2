/**
 * Statistics of experts that few tokens chose, or none: to the tokens that an expert has seen are added a few that stand for
 * what it may meet, so that every expert has statistics, and no direction of its inputs counts as never used.
 */
import { expertOf, inputKind, type InputName } from "../models/spec.ts";
import { type InputSums, shared } from "./statistics.ts";

/**
 * Tokens that are added to each expert. Mixtral's 8 experts see 8192 of the default calibration's 32,768 tokens each, on
 * average: 0.4 % of their statistics.
 */
const PRIOR_TOKENS = 32;

/** The second moments of one token: a column's, and the upper triangle of X'X where it is collected. */
interface Prior {
  readonly squares: Float64Array;
  readonly H: Float32Array | null;
}

/**
 * The layers that read the hidden states get the mean of all tokens that any expert saw. The inputs of `down` are the
 * expert's own: there all columns count alike, as the mean one of all experts.
 *
 * @param sums of all inputs of a block; those of experts are changed
 */
export function addExpertPriors(sums: ReadonlyMap<InputName, InputSums>): void {
  for (const kind of ["mlp", "down"] as const) {
    const experts = [...sums].flatMap(([name, found]) =>
      expertOf(name) !== null && inputKind(name) === kind ? [found] : []
    );
    if (experts.length === 0) continue;
    const prior = kind === "mlp" ? pooled(experts) : even(experts);
    for (const found of experts) addPrior(found, prior);
  }
}

function addPrior(sums: InputSums, prior: Prior): void {
  for (let j = 0; j < sums.squares.length; j++) sums.squares[j] += PRIOR_TOKENS * prior.squares[j];
  sums.tokens += PRIOR_TOKENS;
  if (!sums.H || !prior.H) return;
  for (let at = 0; at < prior.H.length; at++) sums.H[at] += PRIOR_TOKENS * prior.H[at];
  sums.momentTokens += PRIOR_TOKENS;
}

const total = (experts: readonly InputSums[], of: (sums: InputSums) => number): number =>
  experts.reduce((sum, expert) => sum + of(expert), 0);

/** The mean token. */
function pooled(experts: readonly InputSums[]): Prior {
  const tokens = total(experts, (e) => e.tokens), [{ H }] = experts;
  if (!H) return { squares: meanSquares(experts, tokens), H: null };
  const momentTokens = total(experts, (e) => e.momentTokens), mean = shared(H.length);
  for (const { H } of experts) for (let at = 0; at < mean.length; at++) mean[at] += H![at] / momentTokens;
  return { squares: meanSquares(experts, tokens), H: mean };
}

const meanSquares = (experts: readonly InputSums[], tokens: number): Float64Array =>
  experts[0].squares.map((_, j) => total(experts, (e) => e.squares[j]) / tokens);

/** Columns of the mean size, which have nothing to do with each other. */
function even(experts: readonly InputSums[]): Prior {
  const mean = meanSquares(experts, total(experts, (e) => e.tokens)), n = mean.length;
  const square = mean.reduce((sum, x) => sum + x, 0) / n;
  const H = experts[0].H && new Float32Array(n * n);
  for (let j = 0; H && j < n; j++) H[j * n + j] = square;
  return { squares: mean.fill(square), H };
}
