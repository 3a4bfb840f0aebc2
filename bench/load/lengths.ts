/** Distributions of prompts' and answers' lengths, in tokens. */
import type { Random } from "../../compress/random.ts";

interface Shape {
  /** How it is written, after its name and a colon. */
  readonly syntax: RegExp;
  readonly draw: (parameters: readonly number[], random: Random) => number;
  readonly mean: (parameters: readonly number[]) => number;
  /** Of the parameters, counted from 0. */
  readonly range: (parameters: readonly number[]) => readonly [least: number, most: number];
}

const N = "(\\d+(?:\\.\\d+)?)";
const SHAPES: Record<string, Shape> = {
  fixed: {
    syntax: new RegExp(`^${N}$`),
    draw: ([n]) => n,
    mean: ([n]) => n,
    range: ([n]) => [n, n],
  },
  uniform: {
    syntax: new RegExp(`^${N}-${N}$`),
    draw: ([least, most], random) => least + random.below(most - least + 1),
    mean: ([least, most]) => (least + most) / 2,
    range: ([least, most]) => [least, most],
  },
  normal: {
    syntax: new RegExp(`^${N},${N}(?:,${N})?$`),
    draw: ([mean, deviation], random) => mean + deviation * random.normal(),
    mean: ([mean]) => mean,
    range: ([, , most = Infinity]) => [1, most],
  },
  lognormal: {
    syntax: new RegExp(`^${N},${N}(?:,${N})?$`),
    draw: ([median, sigma], random) => median * Math.exp(sigma * random.normal()),
    mean: ([median, sigma]) => median * Math.exp(sigma ** 2 / 2),
    range: ([, , most = Infinity]) => [1, most],
  },
};

export interface Lengths {
  /** As it was written. */
  readonly text: string;
  /** Of the distribution as written: what a largest length cuts off is not taken away. */
  readonly mean: number;
  /** A whole number of tokens, at least 1. */
  draw(random: Random): number;
}

export const LENGTHS_SYNTAX =
  "as in 128, uniform:64-256, normal:128,32 (mean, deviation), lognormal:128,0.5 (median, sigma); a third number of the last two is the largest length";
/** Draws until one lies in range; then the nearest that does. */
const TRIES = 100;

/** @returns null for what is no distribution */
export function parseLengths(text: string): Lengths | null {
  const [name, rest] = text.includes(":") ? text.split(":", 2) : ["fixed", text];
  const shape = Object.hasOwn(SHAPES, name) ? SHAPES[name] : null;
  const match = shape?.syntax.exec(rest.trim());
  if (!shape || !match) return null;
  const parameters = match.slice(1).filter((t) => t !== undefined).map(Number);
  const [least, most] = shape.range(parameters);
  if (parameters[0] < 1 || most < least) return null;
  return {
    text,
    mean: shape.mean(parameters),
    draw: (random) => {
      for (let i = 0; i < TRIES; i++) {
        const length = Math.round(shape.draw(parameters, random));
        if (length >= least && length <= most) return length;
      }
      return Math.max(1, Math.round(Math.min(most, shape.mean(parameters))));
    },
  };
}
