/** How far a compression is, and when it ends at the speed that was measured so far. */
import type { CompressPhase } from "../compress/types.ts";
import type { Recipe } from "../models/recipe.ts";
import type { JobProgress } from "../store/job_store.ts";

/** Of the whole, before which no speed can be told from it. */
const LEAST_SHARE = 0.02;

/**
 * What the stages of a recipe take of its time, in order: about SmolLM2-135M's default at rate 0.5 on two cores (77 s of
 * measuring, 80 of layers, 9 of evaluation), rounded, with some sampling before. Other models differ; the speed of what is
 * behind corrects the sum, not the proportions.
 */
const STAGES = {
  measured: { sample: 0.12, measure: 0.4, compress: 0.42, evaluate: 0.06 },
  given: { sample: 0.15, compress: 0.75, evaluate: 0.1 },
} as const;
type Stage = "sample" | "measure" | "compress" | "evaluate" | "recover";
/** Of the whole, where there is one: SmolLM2 on 100,000 tokens. A recovery tells of itself how long it takes. */
const RECOVER_SHARE = 0.8;

/** Phases whose steps are those of a stage; the others take next to nothing, or go along with one. */
const STAGE_OF: Readonly<Partial<Record<CompressPhase, Stage>>> = {
  sample: "sample",
  calibrate: "measure",
  allocate: "measure",
  compress: "compress",
  evaluate: "evaluate",
  recover: "recover",
};

type StagedRecipe = Pick<Recipe, "allocation"> & Partial<Pick<Recipe, "recover">>;

/** Share of the work that is behind: rises to 1; null of a phase that does not say. */
export function shareDone(
  { phase, done, total }: Pick<JobProgress, "phase" | "done" | "total">,
  { allocation, recover }: StagedRecipe,
): number | null {
  const own: Partial<Record<Stage, number>> = STAGES[allocation.kind === "measured" ? "measured" : "given"];
  const rest = recover ? 1 - RECOVER_SHARE : 1;
  const scaled = Object.entries(own).map(([name, share]) => [name, rest * share]);
  const stages = Object.fromEntries([...scaled, ...recover ? [["recover", RECOVER_SHARE]] : []]);
  const stage = STAGE_OF[phase as CompressPhase];
  if (!stage || !(stage in stages) || total <= 0) return null;
  let before = 0;
  for (const [name, share] of Object.entries<number>(stages)) {
    if (name === stage) return before + share * Math.min(1, done / total);
    before += share;
  }
  return null;
}

/** Seconds to the end, of one run. */
export class EtaEstimator {
  #first: { readonly share: number; readonly atMs: number } | null = null;
  #share = 0;

  constructor(readonly recipe: StagedRecipe, readonly nowMs: () => number = Date.now) {}

  /** @returns null until enough is behind to tell a speed */
  see(progress: Pick<JobProgress, "phase" | "done" | "total">): number | null {
    const share = shareDone(progress, this.recipe), now = this.nowMs();
    if (share !== null) {
      this.#first ??= { share, atMs: now };
      this.#share = Math.max(this.#share, share);
    }
    const behind = this.#share - (this.#first?.share ?? 0);
    if (!this.#first || behind < LEAST_SHARE) return null;
    return (1 - this.#share) * (now - this.#first.atMs) / behind / 1000;
  }
}
