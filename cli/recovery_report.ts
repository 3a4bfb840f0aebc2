/** Options of a recovery, as `compress` and `recover` have them, and what both print of it. */
import type { Recovery } from "../models/formats/artifact_header.ts";
import type { RecipeInput, RecoverRecipe } from "../models/recipe.ts";
import { short } from "./output.ts";

/** Options of a recovery, as `compress` and `recover` have them. */
export interface RecoverFlags {
  readonly recover?: RecoverRecipe["kind"];
  readonly recoverTokens?: number;
  readonly recoverTrain?: RecoverRecipe["train"];
  readonly recoverText?: string;
  readonly recoverLength?: number;
  readonly recoverBatch?: number;
  readonly learningRate?: number;
  readonly recoverSeed?: number;
}

/** What a recipe file says of a recovery with what is given in its place; undefined when neither says anything. */
export function recoverOf(file: RecipeInput["recover"], flags: RecoverFlags): RecipeInput["recover"] {
  const fields = {
    kind: flags.recover,
    tokens: flags.recoverTokens,
    train: flags.recoverTrain,
    text: flags.recoverText,
    length: flags.recoverLength,
    batch: flags.recoverBatch,
    learning_rate: flags.learningRate,
    seed: flags.recoverSeed,
  };
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  if (given.length === 0) return file;
  const own = typeof file === "string" ? { kind: file } : file as object | null | undefined;
  return { ...own, ...Object.fromEntries(given) };
}

/** For people. */
export function recoveryLines(recovery: Recovery | undefined): string[] {
  if (!recovery) return [];
  const { kind, train, tokens, text, seconds, tokensPerSecond, loss, perplexity: p, stopped } = recovery;
  return [
    `recovery     ${kind} of ${train} on ${tokens} tokens of ${text} in ${seconds.toFixed(0)} s (${
      tokensPerSecond.toFixed(0)
    } tokens/s)${ENDS[stopped]}`,
    `             loss ${short(loss.before)} before, ${short(loss.after)} after${
      p ? `; perplexity ${p.before.toFixed(3)} before, ${p.after.toFixed(3)} after` : ""
    }`,
  ];
}
const ENDS: Readonly<Record<Recovery["stopped"], string>> = {
  tokens: "",
  early: ", ended when the loss fell no more",
  cancelled: ", cancelled: the best until then",
};
