/** A budget for each minute that refills steadily (the token bucket algorithm): bursts up to a whole minute's worth. */
export class TokenBucket {
  #level: number;
  #atMs: number;

  /** @param perMinute at least 1; it begins full */
  constructor(readonly perMinute: number, nowMs: number) {
    this.#level = perMinute;
    this.#atMs = nowMs;
  }
  /** Below 0 when more was spent than there was: what a request costs is known when it is over. */
  level(nowMs: number): number {
    const passedMs = Math.max(0, nowMs - this.#atMs);
    this.#level = Math.min(this.perMinute, this.#level + passedMs * this.perMinute / 60_000);
    this.#atMs = Math.max(this.#atMs, nowMs);
    return this.#level;
  }
  /** @param amount of less than 0 is given back */
  spend(amount: number, nowMs: number): void {
    this.#level = this.level(nowMs) - amount;
  }
  /** Milliseconds until the level is at least `wanted`; 0 when it is. */
  waitMs(wanted: number, nowMs: number): number {
    return Math.max(0, (wanted - this.level(nowMs)) * 60_000 / this.perMinute);
  }
}
