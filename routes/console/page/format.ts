/** Numbers as people read them. */

const UNITS = ["B", "KB", "MB", "GB", "TB"] as const;

/** Decimal units, three digits: 9.91 MB. */
export function bytes(n: number): string {
  const unit = Math.min(UNITS.length - 1, n < 1000 ? 0 : Math.floor(Math.log10(n) / 3));
  return unit === 0 ? `${n} B` : `${digits(n / 1000 ** unit)} ${UNITS[unit]}`;
}

/** Three significant digits, never an exponent: 0.123, 12.3, 1,234. */
export function digits(n: number): string {
  if (!Number.isFinite(n)) return "–";
  const decimals = n === 0 ? 0 : Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(n)))));
  return n.toLocaleString("en-US", { maximumFractionDigits: decimals, minimumFractionDigits: 0 });
}

export const integer = (n: number): string => Math.round(n).toLocaleString("en-US");
export const percent = (share: number): string => `${digits(share * 100)} %`;

/** 840 ms, 12.5 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${digits(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}

/** Of seconds since 1970, in the user's zone. */
export const time = (seconds: number): string =>
  new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
