/** Endless prompts by a seed: synthetic ones of given lengths, or a dataset's in a random order. Pure. */
import { type Random, seededRandom, shuffled } from "../../compress/random.ts";
import { isChat, type LoadRequest } from "./client.ts";
import type { DatasetRow } from "./dataset.ts";
import type { Lengths } from "./lengths.ts";
import { WORDS } from "./words.ts";

export interface PromptSource {
  next(): LoadRequest;
}
export interface SharedPrefix {
  readonly tokens: number;
  /** How many different ones; each prompt begins with one of them. */
  readonly groups: number;
}
/** Tokens that a server counts for a text of so many words: `base + perWord * words`. */
export interface WordScale {
  readonly base: number;
  readonly perWord: number;
}
export interface PromptOptions {
  /** Of the answers; null takes a dataset's own, or what the server gives. */
  readonly output: Lengths | null;
  readonly sharedPrefix: SharedPrefix | null;
  readonly scale: WordScale;
  readonly seed: number;
}

/** Prompts of random words; a shared prefix comes before their own length. */
export function syntheticPrompts(input: Lengths, options: PromptOptions): PromptSource {
  const random = seededRandom(options.seed),
    prefixes = sharedPrefixes(options),
    { perWord, base } = options.scale;
  return {
    next: () => {
      const own = words((input.draw(random) - base) / perWord, random);
      const prefix = prefixes.length > 0 ? `${prefixes[random.below(prefixes.length)]} ` : "";
      return { prompt: prefix + own, outputTokens: options.output?.draw(random) ?? null };
    },
  };
}

/** @param rows at least one; all come before one comes again */
export function datasetPrompts(rows: readonly DatasetRow[], options: PromptOptions): PromptSource {
  const random = seededRandom(options.seed), prefixes = sharedPrefixes(options);
  const order = shuffled(rows, random);
  let at = 0;
  return {
    next: () => {
      const { prompt, outputTokens } = order[at++ % order.length];
      return {
        prompt: prefixes.length > 0 ? prefixed(prompt, prefixes[random.below(prefixes.length)]) : prompt,
        outputTokens: options.output?.draw(random) ?? outputTokens,
      };
    },
  };
}

/** The same for every seed of a load but for the prefixes' own: a second run finds them in a server's cache. */
function sharedPrefixes({ sharedPrefix, scale }: PromptOptions): string[] {
  if (!sharedPrefix) return [];
  return Array.from(
    { length: sharedPrefix.groups },
    (_, group) => words(sharedPrefix.tokens / scale.perWord, seededRandom(group)),
  );
}

/** Before a text, as a chat's system message, or not at all before token ids, which are as they are. */
function prefixed(prompt: LoadRequest["prompt"], prefix: string): LoadRequest["prompt"] {
  if (typeof prompt === "string") return `${prefix} ${prompt}`;
  return isChat(prompt) ? [{ role: "system", content: prefix }, ...prompt] : prompt;
}

/** So many words, at least one. */
export function words(count: number, random: Random): string {
  return Array.from({ length: Math.max(1, Math.round(count)) }, () => WORDS[random.below(WORDS.length)]).join(
    " ",
  );
}
