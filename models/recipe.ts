/**
 * The compression recipe: one schema for the CLI, HTTP and the artifact. Unknown fields are refused: a misspelt `rate` must
 * not cost an hour.
 */
import { z } from "@hono/zod-openapi";
import { LINEAR_NAMES } from "./spec.ts";

export const METHODS = [
  "none",
  "magnitude",
  "wanda",
  "sparsegpt",
  "svd",
  "oats",
  "oatmill",
  "structured",
] as const;
export const PATTERNS = ["unstructured", "windows", "2:4", "4:8", "8:16"] as const;
export const SVD_WEIGHTINGS = ["none", "scales", "moments"] as const;
/** int8 has 7 bits (kernels/layout.ts); int5 is stored in the bytes of int8, int3 and int2 in those of int4. */
export const VALUES = ["f32", "int8", "int5", "int4", "int3", "int2"] as const;
/** Bits that values are named for. */
export const VALUE_BITS: Readonly<Record<Exclude<(typeof VALUES)[number], "f32">, number>> = {
  int8: 8,
  int5: 5,
  int4: 4,
  int3: 3,
  int2: 2,
};
/** What a model that is no artifact can be held in. */
export const DENSE_VALUES = ["f32", "int8", "int4"] as const;
export const ROUNDINGS = ["nearest", "feedback"] as const;
export const PRODUCTS = ["int8", "f32"] as const;
/** What the linear layers of the calibration forward multiply. */
export type Products = (typeof PRODUCTS)[number];
export const ALLOCATIONS = ["uniform", "owl", "measured"] as const;
export const RECOVER_KINDS = ["distill", "blockwise"] as const;
export const TRAINED_PARTS = ["lowrank", "lowrank+sparse"] as const;
/** More cannot be asked for: what is left describes no model. */
export const MAX_RATE = 0.95;
const DEFAULT_RANK_RATIO = 0.25;

/** Methods whose S is all they make: an N:M pattern then says the rate. */
const SPARSE_ONLY: readonly string[] = ["magnitude", "wanda", "sparsegpt"];
/** Whether a method makes no L. */
export const isSparseOnly = ({ method }: { readonly method?: string }): boolean =>
  SPARSE_ONLY.includes(method ?? "");

/** N of every M consecutive entries of a row. */
export interface Groups {
  readonly n: number;
  readonly m: number;
}

/** N and M of an N:M pattern; null for the others. */
export function patternGroups(pattern: unknown): Groups | null {
  const [n, m] = typeof pattern === "string" ? pattern.split(":").map(Number) : [];
  return m > 0 ? { n, m } : null;
}

const allocationSchema = z.strictObject({
  kind: z.enum(ALLOCATIONS).default("uniform").describe("How the rate is spread over the blocks"),
  lambda: z.number().min(0).max(0.5).default(0.08).describe(
    "OWL: half of the spread between the blocks' rates, with mean_bits between their bits in eighths",
  ),
  m: z.number().min(1).max(100).default(5).describe("OWL: scores above m x mean count as outliers"),
});
export const WORKLOADS = ["decode", "prefill", "mixed"] as const;
const budgetSchema = z.union([
  z.strictObject({
    bytes: z.int().min(1).describe("Of all tensors of the artifact"),
  }),
  z.strictObject({
    ms_per_token: z.number().positive().describe(
      "Of all linear layers and the head, on this machine, by its kernels' measured times; attention comes on top",
    ),
    workload: z.enum(WORKLOADS).default("mixed").describe(
      "A token that is generated alone, a token of a prompt (batches), or the mean of both",
    ),
  }),
]).describe(
  "What the model may take, in place of a rate: every layer is then stored as costs the least loss, dense or sparse, in 8 or 4 bits",
);
const calibrationSchema = z.strictObject({
  text: z.string().default("self").describe(
    'A text, .jsonl or .json file, a folder of such files, or "self": text sampled from the model itself; ' +
      "for models that read images a folder of images",
  ),
  sequences: z.int().min(1).max(4096).default(128),
  length: z.int().min(16).max(8192).default(512).describe("Tokens per sequence"),
  seed: z.int().min(0).default(0),
  statistics: z.enum(["dense", "sequential"]).default("dense")
    .describe(
      "dense: one pass of the dense model; sequential: inputs from the already compressed blocks (OATS reference)",
    ),
  products: z.enum(PRODUCTS).default("int8").describe(
    "What the pass for statistics multiplies: bytes where the machine's products of bytes are exact, or f32 everywhere",
  ),
});

const recoverSchema = z.strictObject({
  kind: z.enum(RECOVER_KINDS).default("distill").describe(
    "distill: all blocks together, to the dense model's next tokens; blockwise: one after the other, each to the dense block's outputs, with one block in memory",
  ),
  tokens: z.int().min(64).max(1_000_000_000).default(100_000).describe(
    "Tokens to train on; a text that has fewer is read again, in another order",
  ),
  train: z.enum(TRAINED_PARTS).default("lowrank+sparse").describe(
    "What is trained besides norms: L alone, or L and the values of S, whose places stay",
  ),
  learning_rate: z.number().positive().max(1).nullable().default(null).describe(
    "Of AdamW, behind the warm-up; null: what is usual for the kind",
  ),
  batch: z.int().min(1).max(256).nullable().default(null).describe(
    "Sequences of one step; null: what is usual for the kind",
  ),
  length: z.int().min(16).max(8192).default(256).describe("Tokens per sequence"),
  seed: z.int().min(0).default(0).describe("Of the order of the sequences, and of what is sampled"),
  text: z.string().nullable().default(null).describe(
    "What to train on, as calibration.text; null: calibration.text. Sequences that overlap the held-out text are left out",
  ),
});
/** Recovery as a recipe has it. */
export type RecoverRecipe = z.output<typeof recoverSchema>;

/**
 * What a method is asked for where the recipe does not say. `oatmill` is OATS's decomposition with less rank, entries
 * chosen anew with X'X (README of compress/).
 */
const METHOD_DEFAULTS: Readonly<
  Partial<Record<(typeof METHODS)[number], Readonly<Record<string, unknown>>>>
> = {
  oatmill: { rank_ratio: 0.125, iterations: 16, reselect: 4, allocation: { kind: "measured" } },
};
const DEFAULT_METHOD = "oatmill";

/** Recipes by name: fields that the one at hand does not have come from it. */
const PRESETS = {
  default: {},
  // A quarter of the time: no X'X, one rate, the calibration and the evaluation as short as they can be.
  fast: {
    method: "oats",
    rank_ratio: 0.125,
    iterations: 8,
    refine: false,
    allocation: { kind: "uniform" },
    calibration: { sequences: 8 },
    evaluate: { tokens: 2048 },
  },
} as const;
export const PRESET_NAMES = Object.keys(PRESETS) as (keyof typeof PRESETS)[];

/** A user's JSON of which only so much is looked at; the schema checks it next. */
interface Unchecked {
  readonly preset?: keyof typeof PRESETS;
  readonly method?: (typeof METHODS)[number];
  readonly rate?: unknown;
  readonly rank_ratio?: unknown;
  readonly pattern?: unknown;
  readonly allocation?: unknown;
}

/** Fields that are missing and that method or pattern have defaults of their own for. */
function withDefaults(input: unknown): unknown {
  if (typeof input !== "object" || input === null || Array.isArray(input)) return input;
  const recipe = withPreset(input);
  const { method = DEFAULT_METHOD, pattern, allocation } = recipe as Unchecked;
  const groups = patternGroups(pattern);
  // N:M means the same N everywhere unless the recipe says otherwise.
  const defaults = { ...METHOD_DEFAULTS[method], ...groups ? { allocation: { kind: "uniform" } } : {} };
  const merged = typeof allocation === "object"
    ? { ...defaults.allocation ?? {}, ...allocation }
    : allocation;
  const filled = { ...defaults, ...recipe, ...merged === undefined ? {} : { allocation: merged } };
  return groups ? { ...filled, rate: impliedRate(groups, { ...filled, method }) } : filled;
}

/** Groups of fields (calibration, evaluate, allocation) are filled field by field. */
function withPreset(recipe: object): object {
  const filled: Record<string, unknown> = { ...recipe };
  for (const [name, own] of Object.entries(PRESETS[(recipe as Unchecked).preset ?? "default"] ?? {})) {
    const given = filled[name],
      isGroup = typeof given === "object" && given !== null && !Array.isArray(given);
    filled[name] = given === undefined ? own : isGroup ? { ...own as object, ...given } : given;
  }
  return filled;
}

/** The rate that an N:M pattern implies: 1 - N/M; with a low-rank part the one that leaves it the share κ. */
function impliedRate({ n, m }: Groups, { method, rate, rank_ratio }: Unchecked): unknown {
  const share = isSparseOnly({ method }) ? 1 : 1 - Number(rank_ratio ?? DEFAULT_RANK_RATIO);
  const implied = 1 - n / m / share;
  return rate ?? (implied > 0 ? implied : undefined);
}

/**
 * Weights of a layer that is worth cutting a graph for. A layer of 256 x 256 at rate 0.5 takes 5 to 8 times as long as in
 * ONNX Runtime (chains of 6 on one busy core of an AVX-512 machine, 1 to 197 rows; 512 x 512 twice, 1024 x 1024 0.6 to
 * 1.6 times) and saves 0.2 MB at most.
 */
const SMALLEST_LAYER = 65_536;

const fieldsSchema = z.strictObject({
  preset: z.enum(PRESET_NAMES).default("default").describe(
    "fast: a quarter of the time, for a first look; fields that are given stay",
  ),
  method: z.enum(METHODS).default(DEFAULT_METHOD).describe(
    "How weights become S + L; structured: whole heads and FFN channels are removed, what is left stays dense",
  ),
  rate: z.number().min(0).max(MAX_RATE).default(0.3).describe(
    "Share of the block weights' parameters removed (ρ); with a budget: what came out, with method none: zeros left out. N:M patterns say it themselves: 1 - N/M without a low-rank part",
  ),
  budget: budgetSchema.nullable().default(null),
  rank_ratio: z.number().min(0).max(1).default(DEFAULT_RANK_RATIO).describe(
    "Share of the kept parameters given to the low-rank part (κ); 0.125 with method oatmill",
  ),
  dense: z.array(z.enum(LINEAR_NAMES)).max(LINEAR_NAMES.length).default([]).describe(
    "Layers that stay dense in every block; the others lose more instead, so that the rate of the whole stays",
  ),
  pattern: z.enum(PATTERNS).default("windows").describe(
    "Where kept weights may stand. N:M: in every M consecutive ones of a row N; with allocation owl N differs from block to block",
  ),
  allocation: z.preprocess((v) => typeof v === "string" ? { kind: v } : v, allocationSchema).prefault({}),
  values: z.enum(VALUES).default("int8").describe("Of S, or of dense weights; with mean_bits the widest"),
  mean_bits: z.number().min(2).max(8).nullable().default(null).describe(
    "Mixed precision: blocks with more outliers (OWL's ratios) get more bits, up to those of values; the mean of the blocks, met from below",
  ),
  rounding: z.enum(ROUNDINGS).default("nearest").describe(
    "nearest: every weight alone; feedback: codes and scales that make up for one another on calibration data",
  ),
  iterations: z.int().min(1).max(200).default(20).describe(
    "Alternating steps of OATS, steps of subspace iteration of fast svd; 16 with method oatmill",
  ),
  decomposition: z.enum(["fast", "exact"]).default("fast").describe(
    "fast: warm-started subspace iteration; exact: a full factorisation in every step",
  ),
  svd_weighting: z.enum(SVD_WEIGHTINGS).default("moments").describe(
    "What method svd is nearest in: the weights, the weights times their inputs' sizes, or the layer's outputs",
  ),
  refine: z.boolean().default(true).describe("Refit L and the kept values of S on calibration data"),
  reselect: z.int().min(0).max(50).default(0).describe(
    "Rounds in which S's entries are chosen anew with X'X (needs refine); 4 with method oatmill",
  ),
  smallest_layer: z.int().min(0).default(SMALLEST_LAYER).describe(
    "Of an ONNX graph: layers of fewer weights stay with ONNX Runtime",
  ),
  calibration: calibrationSchema.prefault({}),
  evaluate: z.strictObject({
    text: z.string().nullable().default(null).describe(
      "Held-out text file; null: sequences held back from calibration",
    ),
    tokens: z.int().min(64).max(1_000_000).default(4096),
  }).prefault({}),
  recover: z.preprocess((v) => typeof v === "string" ? { kind: v } : v, recoverSchema.nullable()).default(
    null,
  )
    .describe(
      "Training after compression that gives back what it took; null: none. A name alone is its kind",
    ),
});
/** Fields that contradict each other. */
function checkBudget(
  { budget, allocation, method, pattern, values }: z.infer<typeof fieldsSchema>,
  context: z.RefinementCtx,
): void {
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  if (!budget) return;
  if (method === "none") refuse("budget", "Method none has no choice to make within a budget");
  if (allocation.kind !== "measured") refuse("allocation", 'A budget needs allocation "measured"');
  if (pattern !== "windows") refuse("pattern", 'A budget needs pattern "windows"');
  if (values === "f32") refuse("values", "A budget is for weights in 8 or 4 bits, not f32");
}

function checkMeanBits(
  { mean_bits, method, rate, budget, values }: z.infer<typeof fieldsSchema>,
  context: z.RefinementCtx,
): void {
  if (mean_bits === null) return;
  const refuse = (message: string) => context.addIssue({ code: "custom", path: ["mean_bits"], message });
  if (values === "f32") refuse("Values f32 are not stored in fewer bits");
  else if (mean_bits > VALUE_BITS[values]) refuse(`Values ${values} have ${VALUE_BITS[values]} bits at most`);
  if (budget) refuse("A budget chooses the bits of every layer itself");
  else if (method === "structured") refuse("Method structured has one kind of values for all blocks");
  else if (method !== "none" && rate === 0) {
    refuse("At rate 0 every layer stays dense, with 8 bits: use method none");
  }
}

/** What can be said of method, pattern and rate together without knowing a model. */
function checkPattern(
  { method, pattern, rate, budget }: z.infer<typeof fieldsSchema>,
  context: z.RefinementCtx,
): void {
  const groups = patternGroups(pattern);
  if (!groups || method === "none" || rate === 0 || budget) return;
  const removed = 1 - groups.n / groups.m;
  const issue = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  if (method === "svd") issue("pattern", `Method svd has no sparse part for pattern ${pattern}`);
  else if (isSparseOnly({ method }) && Math.abs(rate - removed) > 1e-6) {
    issue(
      "rate",
      `Pattern ${pattern} removes ${removed} with method ${method}: must be left out or ${removed}`,
    );
  } else if (rate > removed + 1e-6) {
    issue("rate", `Pattern ${pattern} alone keeps ${1 - removed}: must be at most ${removed}`);
  }
}

/** Fields that say how S and L are chosen: `structured` has neither. */
const SPARSE_FIELDS = [
  "rank_ratio",
  "pattern",
  "iterations",
  "decomposition",
  "svd_weighting",
  "reselect",
] as const;

/** A value that would be ignored is a mistake; the default may stand, since stored recipes have every field. */
function checkStructured(recipe: z.infer<typeof fieldsSchema>, context: z.RefinementCtx): void {
  if (recipe.method !== "structured") return;
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  for (const field of SPARSE_FIELDS) {
    if (recipe[field] !== fieldsSchema.shape[field].parse(undefined)) {
      refuse(field, "Means nothing with method structured, which removes whole heads and channels");
    }
  }
  if (recipe.budget) refuse("budget", "Method structured removes a rate, it has no budget");
  else if (recipe.allocation.kind === "measured") {
    refuse("allocation", "Losses are measured for S + L: with method structured use uniform or owl");
  }
}

/** What can be said of a recovery without knowing a model. */
function checkRecover(
  { recover, method, rate, budget, evaluate }: z.infer<typeof fieldsSchema>,
  context: z.RefinementCtx,
): void {
  if (recover === null) return;
  const refuse = (message: string, ...path: string[]) =>
    context.addIssue({ code: "custom", path: ["recover", ...path], message });
  if (method === "none" || method === "structured") {
    refuse(`Only S + L can be recovered: method ${method} leaves dense weights`);
  } else if (rate === 0 && !budget) refuse("At rate 0 every layer stays dense: there is nothing to recover");
  else if (isSparseOnly({ method }) && recover.train === "lowrank") {
    refuse(`Method ${method} has no low-rank part to train: must be lowrank+sparse`, "train");
  }
  if (recover.text !== null && recover.text === evaluate.text) {
    refuse("The text to evaluate on is held out: must be another text", "text");
  }
}

/** Unknown fields are refused; defaults are filled in. */
export const recipeSchema = z.preprocess(
  withDefaults,
  fieldsSchema.superRefine(checkStructured).superRefine(checkBudget).superRefine(checkPattern)
    .superRefine(checkMeanBits).superRefine(checkRecover),
);
export type Recipe = z.output<typeof fieldsSchema>;
export type RecipeInput = z.input<typeof fieldsSchema>;
