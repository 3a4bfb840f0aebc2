/** Reads Prometheus text: counters, and quantiles of histograms as PromQL's histogram_quantile() has them. Tests only. */

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Samples of one name that have these labels among theirs. */
export function samples(text: string, name: string, labels: Readonly<Record<string, string>> = {}): Sample[] {
  return text.split("\n").filter((line) => line.startsWith(`${name}{`)).map((line) => ({
    labels: Object.fromEntries([...line.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value])),
    value: Number(line.slice(line.lastIndexOf("}") + 1).trim().split(" ")[0]),
  })).filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value));
}

export const total = (text: string, name: string, labels?: Readonly<Record<string, string>>): number =>
  samples(text, name, labels).reduce((sum, { value }) => sum + value, 0);

/** What was recorded between two scrapes, interpolated linearly within a bucket. */
export function quantileBetween(
  before: string,
  after: string,
  { name, labels, q }: { readonly name: string; readonly labels: Record<string, string>; readonly q: number },
): number {
  const bounds = samples(after, `${name}_bucket`, labels).map(({ labels: { le }, value }) => {
    const former = total(before, `${name}_bucket`, { ...labels, le });
    return { le: le === "+Inf" ? Infinity : Number(le), count: value - former };
  }).sort((a, b) => a.le - b.le);
  const rank = q * bounds.at(-1)!.count;
  const at = bounds.findIndex(({ count }) => count >= rank && count > 0);
  const lower = at === 0 ? { le: 0, count: 0 } : bounds[at - 1], upper = bounds[at];
  if (upper.le === Infinity) return lower.le;
  return lower.le + (upper.le - lower.le) * (rank - lower.count) / (upper.count - lower.count);
}
