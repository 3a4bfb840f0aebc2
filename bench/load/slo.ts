/** Service levels that a request must meet to count as goodput. */
export const SLO_KINDS = ["ttft", "tpot", "e2e"] as const;
export type SloKind = typeof SLO_KINDS[number];
/** Milliseconds. */
export type Slo = Readonly<Partial<Record<SloKind, number>>>;

const MS_PER: Readonly<Record<string, number>> = { us: 1e-3, ms: 1, s: 1000, m: 60_000 };

/** `200ms`, `1.5s`, `2m`; a bare number counts `unit`. @returns milliseconds, or null for what is no duration */
export function parseDuration(text: string, unit: "ms" | "s" = "ms"): number | null {
  const match = /^(\d+(?:\.\d+)?)(us|ms|s|m)?$/.exec(text.trim());
  return match && Number(match[1]) > 0 ? Number(match[1]) * MS_PER[match[2] ?? unit] : null;
}

/** @param text as in `ttft=200ms,tpot=30ms,e2e=2s` @returns null for what is none */
export function parseSlo(text: string): Slo | null {
  const slo: Partial<Record<SloKind, number>> = {};
  for (const part of text.split(",")) {
    const [name, value, ...rest] = part.split("=").map((t) => t.trim());
    const kind = SLO_KINDS.find((k) => k === name), ms = parseDuration(value ?? "");
    if (!kind || ms === null || rest.length > 0 || kind in slo) return null;
    slo[kind] = ms;
  }
  return slo;
}

/** A request of one token has no time per further token: it meets any. */
export function meets(slo: Slo, times: Readonly<Record<SloKind, number | null>>): boolean {
  return SLO_KINDS.every((kind) => slo[kind] === undefined || (times[kind] ?? 0) <= slo[kind]);
}
