/**
 * Rates from measured losses. The loss of a layer is predicted as its share of the divergence that its part of the block
 * caused (sensitivity.ts), scaled by how its error changes with what it keeps (probe_job.ts); the budget then goes where it
 * lowers the sum most (solve.ts).
 */
import { OatmillError } from "../../errors.ts";
import type { Shape2 } from "../../kernels/layout.ts";
import { MAX_RATE, type Recipe } from "../../models/recipe.ts";
import {
  expertOf,
  type LinearKind,
  linearKind,
  type LinearName,
  linearShapes,
  type ModelSpec,
} from "../../models/spec.ts";
import { type LayerPlan, planAtRate, planBytes, planParameters } from "../layer_plan.ts";
import { denseValues } from "../stored_parts.ts";
import { headMs, type LayerTimesOptions, planMs } from "./layer_times.ts";
import { CURVE_POINTS, type LayerProbe } from "./probe_job.ts";
import type { RoundingErrors } from "./rounding_errors.ts";
import { type Divergences, type PartName, PARTS } from "./sensitivity.ts";
import { chooseOptions } from "./solve.ts";

/** Rates that a layer may have are this far apart. */
const RATE_STEP = 1 / 64;
/** What the full method leaves of the quick one's error: 0.0166 of 0.0268, block 9 of SmolLM2, rate 0.5. */
const FULL_METHOD = 0.62;
/** A part that seems not to matter at all still does a little: this share of the mean part. */
const LEAST_SHARE = 0.01;

/**
 * Power of a layer's divergence per parameter that stands for what it costs among the others: once all are compressed,
 * layers differ less than alone (putting one block of SmolLM2 back saves 0.006 to 0.08 nats, where compressing it
 * alone had cost 0.006 to 0.13). Perplexity of SmolLM2 and of the bundled model at rate 0.5 with power 1: 47.9, 10.168;
 * 0.6: 46.6; 0.5: 10.084; 0, one rate for all: 49.9, 10.12.
 */
const TEMPER = 0.6;
const MOST_ROUNDING = 3;
/** No layer loses more than this, or than halfway from the mean rate to everything. */
const MOST_RATE = 0.8;

export interface Measurements {
  /** By block and name. */
  readonly probes: readonly Readonly<Partial<Record<LinearName, LayerProbe>>>[];
  readonly divergences: Divergences;
}

interface Layer {
  readonly block: number;
  readonly name: LinearName;
  readonly shape: Shape2;
  /** Of the tokens that go through it; an expert's as if all were chosen alike. */
  readonly tokenShare: number;
  /** What the quick S + L of this layer costs, in a unit of its own: its divergence, tempered. */
  readonly divergence: number;
  readonly probe: LayerProbe;
  /** What rounding it costs, as a share of the quick S + L. */
  readonly rounding: RoundingErrors;
}

/** One way to store a layer. */
interface Candidate {
  readonly plan: LayerPlan;
  readonly cost: number;
  readonly loss: number;
}

export interface MeasuredOptions {
  readonly spec: ModelSpec;
  readonly recipe: Recipe;
  /** Of each block, without a budget. */
  readonly values: readonly Recipe["values"][];
  readonly blockChunks: number;
  /** Bytes of the artifact's tensors that are not up for choice. */
  readonly otherBytes: number;
  /** For a budget of milliseconds: the kernels' times, and the threads that share the work. */
  readonly speed: Pick<LayerTimesOptions, "times" | "threads"> | null;
}

/**
 * The plan of every layer, by block and name, with the least predicted loss within the recipe's rate or budget.
 * @throws {OatmillError} invalid_recipe when the budget is below the least that the layers can take
 */
export function measuredPlans(
  measurements: Measurements,
  options: MeasuredOptions,
): readonly Readonly<Record<string, LayerPlan>>[] {
  const layers = layersOf(measurements, options), budget = budgetOf(layers, options);
  const candidates = layers.map((layer) => candidatesOf(layer, budget, options));
  const chosen = chooseOptions(candidates, budget.amount) ?? cheapestOptions(candidates, budget, options);
  const plans = Array.from({ length: options.spec.blocks }, (): Record<string, LayerPlan> => ({}));
  layers.forEach(({ block, name }, i) => plans[block][name] = candidates[i][chosen[i]].plan);
  return plans;
}

function layersOf({ probes, divergences }: Measurements, { spec }: MeasuredOptions): Layer[] {
  const shapes = linearShapes(spec), { experts } = spec.mlp;
  const all = divergences.parts.flatMap((parts) => Object.values(parts)), rounding = roundingRatios(probes);
  const least = LEAST_SHARE * all.reduce((a, b) => a + Math.max(0, b), 0) / all.length;
  return probes.flatMap((ofBlock, block) =>
    (Object.entries(ofBlock) as [LinearName, LayerProbe][]).map(([name, probe]) => {
      const kind = linearKind(name), expert = experts && expertOf(name) !== null ? experts : null;
      const part = (Object.keys(PARTS) as PartName[]).find((p) =>
        (PARTS[p] as readonly string[]).includes(kind)
      )!;
      const measured = PARTS[part].filter((other) => divergences.kinds[other] !== undefined);
      const share = shareOfPart(kind, measured, divergences.kinds) / (expert?.count ?? 1);
      const size = shapes[name]![0] * shapes[name]![1];
      const alone = share * Math.max(least, divergences.parts[block][part]);
      const divergence = size * (alone / size) ** TEMPER;
      return {
        block,
        name,
        shape: shapes[name]!,
        tokenShare: expert ? expert.perToken / expert.count : 1,
        divergence,
        probe,
        rounding: rounding(kind, probe),
      };
    })
  );
}

/**
 * Errors of rounding over those of the quick S + L, at most {@linkcode MOST_ROUNDING} times the usual ratio of
 * layers of its kind. Where one token has nearly all the energy of the inputs, the quick S + L keeps what that token needs, rounding
 * does not, and the ratio says nothing of the other tokens: SmolLM2's block 11 then stored `down` as S + L where dense
 * int4 fits, 33.3 in place of 32.5 perplexity.
 */
function roundingRatios(
  probes: Measurements["probes"],
): (kind: LinearKind, probe: LayerProbe) => RoundingErrors {
  const ratio = ({ rounding, error }: LayerProbe, values: keyof RoundingErrors) =>
    (rounding?.[values] ?? 0) / Math.max(error, Number.MIN_VALUE);
  const bounds = new Map<string, number>();
  const ofKind = (kind: LinearKind) =>
    probes.flatMap((ofBlock) =>
      (Object.entries(ofBlock) as [LinearName, LayerProbe][]).filter(([name]) => linearKind(name) === kind)
    );
  const bound = (kind: LinearKind, values: keyof RoundingErrors) => {
    const key = `${kind} ${values}`;
    if (!bounds.has(key)) {
      const all = ofKind(kind).map(([, probe]) => ratio(probe, values));
      bounds.set(key, MOST_ROUNDING * all.sort((a, b) => a - b)[all.length >> 1]);
    }
    return bounds.get(key)!;
  };
  return (kind, probe) => ({
    int8: Math.min(ratio(probe, "int8"), bound(kind, "int8")),
    int4: Math.min(ratio(probe, "int4"), bound(kind, "int4")),
  });
}

/** Share of a kind of layers in what its part of a block matters: as the kind matters in all blocks. */
function shareOfPart(kind: LinearKind, part: readonly LinearKind[], kinds: Divergences["kinds"]): number {
  const sum = part.reduce((total, other) => total + Math.max(0, kinds[other]!), 0);
  return sum > 0 ? Math.max(LEAST_SHARE, kinds[kind]! / sum) : 1 / part.length;
}

/** What a recipe's budget is spent in: how much there is for these layers, what a plan costs, and which values it may choose. */
interface Budget {
  readonly amount: number;
  readonly unit: string;
  /** What the rest of the model takes of the recipe's budget. */
  readonly rest: number;
  cost(layer: Pick<Layer, "shape" | "tokenShare">, plan: LayerPlan): number;
  values(block: number): readonly Recipe["values"][];
}

/** Values that layers may have within a budget of bytes or milliseconds. */
const STORED_VALUES = ["int8", "int4"] as const;

function budgetOf(
  layers: readonly Layer[],
  { spec, recipe, values, blockChunks, otherBytes, speed }: MeasuredOptions,
): Budget {
  const { rate, budget } = recipe;
  if (!budget) {
    const size = layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
    return {
      amount: (1 - rate) * size,
      unit: "parameters",
      rest: 0,
      cost: ({ shape }, plan) => planParameters(shape, plan),
      values: (block) => [values[block]],
    };
  }
  if ("bytes" in budget) {
    return {
      amount: budget.bytes - otherBytes,
      unit: "bytes",
      rest: otherBytes,
      cost: ({ shape }, plan) => planBytes(shape, plan, blockChunks),
      values: () => STORED_VALUES,
    };
  }
  const options: LayerTimesOptions = { ...speed!, workload: budget.workload, blockChunks };
  const head = spec.attention.causal ? headMs([spec.vocabSize, spec.hiddenSize], options) : 0;
  return {
    amount: budget.ms_per_token - head,
    unit: "ms",
    rest: head,
    cost: ({ shape, tokenShare }, plan) => tokenShare * planMs(shape, plan, options),
    values: () => STORED_VALUES,
  };
}

/**
 * Above ρ = 15/16 windows cannot keep so little: then the least there is, as with one rate for all layers.
 * @throws {OatmillError} invalid_recipe, when a budget was named
 */
function cheapestOptions(
  candidates: readonly (readonly Candidate[])[],
  { amount, unit, rest }: Budget,
  { recipe }: MeasuredOptions,
): number[] {
  const chosen = candidates.map((some) =>
    some.reduce((best, { cost }, i) => cost < some[best].cost ? i : best, 0)
  );
  if (!recipe.budget) return chosen;
  const least = candidates.reduce((sum, some, i) => sum + some[chosen[i]].cost, 0);
  throw new OatmillError(
    "invalid_recipe",
    `Cannot compress the model to ${short(amount + rest)} ${unit}: its blocks need ${
      short(least)
    } at least, the rest ${short(rest)}`,
    "budget",
  );
}

const short = (n: number): string => Number.isInteger(n) ? String(n) : n.toFixed(3);

/** Every rate that the method can give the layer, and the dense layer. */
function candidatesOf(layer: Layer, budget: Budget, options: MeasuredOptions): Candidate[] {
  const { shape, block } = layer, { recipe } = options, rates: number[] = [];
  const most = Math.min(MAX_RATE, Math.max(MOST_RATE, (1 + recipe.rate) / 2));
  for (let rate = RATE_STEP; rate <= most; rate += RATE_STEP) rates.push(rate);
  const plans = budget.values(block).flatMap((values) => [
    { budget: null, values: recipe.budget ? values : denseValues({ ...recipe, values }) },
    ...rates.map((rate) => planAtRate(shape, rate, { ...options, recipe: { ...recipe, values } }))
      .filter((plan) => plan.budget),
  ]);
  return plans.map((plan) => ({ plan, cost: budget.cost(layer, plan), loss: predictedLoss(layer, plan) }));
}

/** What a plan costs, as if losses of layers added up: they do not quite, but it ranks them. */
function predictedLoss({ shape, divergence, probe, ...layer }: Layer, { budget, values }: LayerPlan): number {
  const rounding = values === "f32" ? 0 : divergence * layer.rounding[values === "int4" ? "int4" : "int8"];
  if (!budget) return rounding;
  const lowRank = budget.rank * (shape[0] + shape[1]) / (shape[0] * shape[1]);
  // More or less L than the quick one had counts as as many entries of S.
  const kept = budget.kept / shape[1] + lowRank - probe.lowRank;
  return rounding + divergence * FULL_METHOD * interpolate(probe.curve, kept * CURVE_POINTS);
}

function interpolate(curve: readonly number[], at: number): number {
  const x = Math.min(curve.length - 1, Math.max(0, at)), low = Math.min(curve.length - 2, Math.floor(x));
  return curve[low] + (x - low) * (curve[low + 1] - curve[low]);
}
