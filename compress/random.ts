/** Seeded random numbers: everything random in a compression is repeatable from the recipe. */

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** Integer in [0, bound). */
  below(bound: number): number;
  normal(): number;
}

/** sfc32, seeded through splitmix-style mixing of `seed`. */
export function seededRandom(seed: number): Random {
  let a = seed | 0, b = 0x9e3779b9 | 0, c = 0x243f6a88 | 0, counter = 1;
  const step = () => {
    const t = (a + b | 0) + counter | 0;
    counter = counter + 1 | 0;
    a = b ^ (b >>> 9);
    b = c + (c << 3) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 16; i++) step();
  return {
    next: step,
    below: (bound) => Math.floor(step() * bound),
    normal: () => Math.sqrt(-2 * Math.log(1 - step())) * Math.cos(2 * Math.PI * step()),
  };
}

/** `values` in a random order (Fisher-Yates), as a new array. */
export function shuffled<T>(values: readonly T[], random: Random): T[] {
  const out = [...values];
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}
