/** How a sweep is written. */
export const SWEEP_KINDS = ["rate", "concurrency"] as const;
export type SweepKind = typeof SWEEP_KINDS[number];

export interface Sweep {
  readonly kind: SweepKind;
  /** Rising; null doubles from `from` until a load no longer holds, then looks between the last two. */
  readonly loads: readonly number[] | null;
  readonly from: number;
}

/** `rate=1,2,4`, `concurrency=auto`, `rate=auto:0.5` (doubling from there). @returns null for what is none */
export function parseSweep(text: string): Sweep | null {
  const [name, values = "", ...rest] = text.split("=").map((t) => t.trim());
  const kind = SWEEP_KINDS.find((k) => k === name), auto = /^auto(?::(.+))?$/.exec(values);
  if (!kind || rest.length > 0) return null;
  const usable = (n: number) => n > 0 && Number.isFinite(n) && (kind === "rate" || Number.isSafeInteger(n));
  if (auto) {
    const from = Number(auto[1] ?? 1);
    return usable(from) ? { kind, loads: null, from } : null;
  }
  const loads = values.split(",").map((t) => t.trim() === "" ? NaN : Number(t));
  const rising = loads.every((n, i) => usable(n) && (i === 0 || n > loads[i - 1]));
  return rising ? { kind, loads, from: loads[0] } : null;
}
