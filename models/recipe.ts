/**
 * The compression recipe: one schema for the CLI, HTTP and the artifact. Unknown fields are refused: a misspelt `rate` must
 * not cost an hour.
 */
import { z } from "@hono/zod-openapi";
import { LINEAR_NAMES } from "./spec.ts";

export const METHODS = ["none", "magnitude", "wanda", "oats"] as const;
export const PATTERNS = ["unstructured", "windows"] as const;
export const VALUES = ["f32", "int8", "int4"] as const;
/** More cannot be asked for: what is left describes no model. */
export const MAX_RATE = 0.95;

const allocationSchema = z.strictObject({
  kind: z.enum(["uniform", "owl"]).default("owl").describe("How the rate is spread over the blocks"),
  lambda: z.number().min(0).max(0.5).default(0.08).describe(
    "OWL: half of the spread between the blocks' rates",
  ),
  m: z.number().min(1).max(100).default(5).describe("OWL: scores above m x mean count as outliers"),
});
const calibrationSchema = z.strictObject({
  text: z.string().default("self").describe(
    'A text or .jsonl file, or "self": text sampled from the model itself',
  ),
  sequences: z.int().min(1).max(4096).default(128),
  length: z.int().min(16).max(8192).default(512).describe("Tokens per sequence"),
  seed: z.int().min(0).default(0),
  statistics: z.enum(["dense", "sequential"]).default("dense")
    .describe(
      "dense: one pass of the dense model; sequential: inputs from the already compressed blocks (OATS reference)",
    ),
});

export const recipeSchema = z.strictObject({
  method: z.enum(METHODS).default("oats"),
  rate: z.number().min(0).max(MAX_RATE).default(0.3).describe(
    "Share of the block weights' parameters removed (ρ)",
  ),
  rank_ratio: z.number().min(0).max(1).default(0.25).describe(
    "Share of the kept parameters given to the low-rank part (κ)",
  ),
  dense: z.array(z.enum(LINEAR_NAMES)).max(LINEAR_NAMES.length).default([]).describe(
    "Layers that stay dense in every block; the others lose more instead, so that the rate of the whole stays",
  ),
  pattern: z.enum(PATTERNS).default("windows"),
  allocation: z.preprocess((v) => typeof v === "string" ? { kind: v } : v, allocationSchema).prefault({}),
  values: z.enum(VALUES).default("int8"),
  iterations: z.int().min(1).max(200).default(20).describe("Alternating steps of OATS"),
  decomposition: z.enum(["fast", "exact"]).default("fast").describe(
    "fast: warm-started subspace iteration; exact: a full factorisation in every step",
  ),
  refine: z.boolean().default(true).describe("Refit L and the kept values of S on calibration data"),
  calibration: calibrationSchema.prefault({}),
  evaluate: z.strictObject({
    text: z.string().nullable().default(null).describe(
      "Held-out text file; null: sequences held back from calibration",
    ),
    tokens: z.int().min(64).max(1_000_000).default(4096),
  }).prefault({}),
});
export type Recipe = z.infer<typeof recipeSchema>;
export type RecipeInput = z.input<typeof recipeSchema>;
