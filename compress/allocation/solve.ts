/** Spends one budget over many layers: for each one of its options, with the least sum of losses that can be paid. */

export interface Option {
  /** What it costs, >= 0, in the budget's unit. */
  readonly cost: number;
  readonly loss: number;
}

/** A step along a layer's hull: to option `to`, for `cost` more and `gain` less loss. */
interface Step {
  readonly layer: number;
  readonly to: number;
  readonly cost: number;
  readonly gain: number;
}

/**
 * The multiple-choice knapsack by its linear relaxation: every layer begins with its cheapest option, then the steps
 * along the lower convex hulls of (cost, loss) are taken by falling gain per cost while they can be paid (Sinha and
 * Zoltners, Operations Research 27, 1979). Optimal but for the last few steps, which are small beside the budget.
 *
 * @param layers each layer's options, in any order, at least one
 * @returns the index of each layer's option, or null when even the cheapest ones cost more than the budget
 */
export function chooseOptions(layers: readonly (readonly Option[])[], budget: number): number[] | null {
  const hulls = layers.map(lowerHull);
  const chosen = hulls.map((hull) => hull[0]);
  let left = budget - chosen.reduce((sum, option, layer) => sum + layers[layer][option].cost, 0);
  if (left < 0) return null;
  const stopped = new Set<number>();
  const steps = hulls.flatMap((hull, layer) => stepsAlong(hull, layers[layer], layer));
  for (const { layer, to, cost } of steps.sort((a, b) => b.gain * a.cost - a.gain * b.cost)) {
    if (stopped.has(layer)) continue;
    if (cost > left) {
      stopped.add(layer); // what comes after it in its layer costs more still
      continue;
    }
    chosen[layer] = to;
    left -= cost;
  }
  return chosen;
}

/** Indices of the options on the lower convex hull, by rising cost and falling loss. */
function lowerHull(options: readonly Option[]): number[] {
  const order = options.map((_, i) => i).sort((a, b) =>
    options[a].cost - options[b].cost || options[a].loss - options[b].loss
  );
  const hull: number[] = [];
  for (const i of order) {
    if (hull.length > 0 && options[i].loss >= options[hull.at(-1)!].loss) continue;
    while (hull.length > 1 && isAbove(options[hull.at(-2)!], options[hull.at(-1)!], options[i])) hull.pop();
    hull.push(i);
  }
  return hull;
}

/** Whether b lies on or above the line from a to c. */
const isAbove = (a: Option, b: Option, c: Option): boolean =>
  (b.loss - a.loss) * (c.cost - a.cost) >= (c.loss - a.loss) * (b.cost - a.cost);

const stepsAlong = (hull: readonly number[], options: readonly Option[], layer: number): Step[] =>
  hull.slice(1).map((to, i) => ({
    layer,
    to,
    cost: options[to].cost - options[hull[i]].cost,
    gain: options[hull[i]].loss - options[to].loss,
  }));
