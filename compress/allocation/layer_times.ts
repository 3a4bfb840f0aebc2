/** Milliseconds of a layer as a plan stores it, from the kernels' measured times. */
import type { FormatTimes } from "../../kernels/format_times.ts";
import { formatName, type Shape2 } from "../../kernels/layout.ts";
import type { WORKLOADS } from "../../models/recipe.ts";
import type { LayerPlan } from "../layer_plan.ts";
import { budgetSlots, denseFormat, factorKind, sparseFormat } from "../stored_parts.ts";

export type Workload = (typeof WORKLOADS)[number];

/** What each short read of a factor costs before it runs at full speed, in decode (issue: 330 reads a token of SmolLM2). */
const COLD_START_MS = 1e-3;
/** Reads of L: V and U. */
const FACTORS = 2;

export interface LayerTimesOptions {
  readonly times: FormatTimes;
  readonly workload: Workload;
  readonly threads: number;
  readonly blockChunks: number;
}

/** Milliseconds for one token; `mixed` is one token of a prompt and one that is generated, shared by two. */
export function planMs(shape: Shape2, plan: LayerPlan, options: LayerTimesOptions): number {
  const of = (work: "decode" | "batched") => workMs(shape, plan, { ...options, work });
  switch (options.workload) {
    case "decode":
      return of("decode");
    case "prefill":
      return of("batched");
    case "mixed":
      return (of("decode") + of("batched")) / 2;
  }
}

function workMs(
  [dOut, dIn]: Shape2,
  { budget, values }: LayerPlan,
  { times, threads, blockChunks, work }: LayerTimesOptions & { readonly work: "decode" | "batched" },
): number {
  const ms = (weights: number, format: string) => weights * times[format][work] / 1e6 / threads;
  if (!budget) return ms(dOut * dIn, formatName(denseFormat(values)));
  const sparse = ms(
    dOut * dIn,
    formatName(sparseFormat({ values }, budgetSlots(budget.windows), blockChunks)),
  );
  if (budget.rank === 0) return sparse;
  return sparse + ms(budget.rank * (dOut + dIn), factorKind({ values })) +
    (work === "decode" ? FACTORS * COLD_START_MS : 0);
}

/** Milliseconds of the head for one token: it is computed for the tokens that are generated. */
export function headMs(shape: Shape2, { times, workload, threads }: LayerTimesOptions): number {
  const decode = shape[0] * shape[1] * times.q8.decode / 1e6 / threads;
  return workload === "decode" ? decode : workload === "mixed" ? decode / 2 : 0;
}
