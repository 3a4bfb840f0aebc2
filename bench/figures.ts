/** Repeated measurements in figures: the median to go by, and how far the single rounds lie apart. */
import { median, type Spread, spread } from "./spread.ts";

/** What one round measured, by name. */
export type Figures<K extends string = string> = Readonly<Record<K, number>>;
/** The medians, and beside them how far the rounds lie apart. */
export interface Summary<K extends string = string> {
  readonly median: Figures<K>;
  readonly spread: Readonly<Record<K, Spread>>;
}

/** @param rounds at least one, all with the same figures */
export function summarise<K extends string>(rounds: readonly Figures<K>[]): Summary<K> {
  const names = Object.keys(rounds[0]) as K[];
  const each = <T>(f: (values: number[]) => T) =>
    Object.fromEntries(names.map((name) => [name, f(rounds.map((r) => r[name]))])) as Record<K, T>;
  return { median: each(median), spread: each(spread) };
}

/** A's figures over B's of the same round: what drifts in the machine between rounds does not count. */
export function ratios<K extends string>(a: readonly Figures<K>[], b: readonly Figures<K>[]): Summary<K> {
  return summarise(a.map((figures, round) => {
    const names = Object.keys(figures) as K[];
    return Object.fromEntries(names.map((k) => [k, figures[k] / b[round][k]])) as Figures<K>;
  }));
}
