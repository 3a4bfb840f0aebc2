/** `inspect --speed`: which layers run faster as they are stored than dense ones, on this machine. */
import { artifactLayers, kindName, type ModelLayers, recipeLayers } from "../bench/layer_kinds.ts";
import {
  type BatchSpeed,
  benchLayers,
  DENSE_RIVALS,
  type LayersReport,
  type NameSpeed,
  SPEED_BATCHES,
} from "../bench/layers.ts";
import { OatmillError } from "../errors.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { type RecipeInput, recipeSchema } from "../models/recipe.ts";
import type { LinearKind, ModelSpec } from "../models/spec.ts";
import { ProgressBar, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface SpeedOptions {
  readonly threads?: number;
  readonly autotune?: boolean;
  /** What compression is asked about, for a model that is no artifact; absent: the recipe's defaults. */
  readonly rate?: number;
  readonly rankRatio?: number;
  readonly values?: RecipeInput["values"];
}

const notSparse = (what: string) =>
  new OatmillError(
    "invalid_request",
    `Cannot compare layers: ${what} has none that are sparse and quantised`,
  );

/** @throws {OatmillError} invalid_request when no layer is stored sparse */
export async function artifactSpeed(header: ArtifactHeader, options: SpeedOptions) {
  if (header.recipe.values === "f32") throw notSparse(`"${header.name}" with values f32`);
  return await speed(artifactLayers(header), { name: `"${header.name}"`, ...options });
}

/**
 * Of what compression would store.
 * @throws {OatmillError} invalid_request when it would store no layer sparse
 */
export async function specSpeed(spec: ModelSpec, options: SpeedOptions) {
  const { rate, rankRatio, values } = options;
  const fields = Object.entries({ rate, rank_ratio: rankRatio, values }).filter(([, v]) => v !== undefined);
  const recipe = { ...recipeSchema.parse(Object.fromEntries(fields)), pattern: "windows" as const };
  if (recipe.values === "f32") throw notSparse("compression to f32");
  const asked = { rate: recipe.rate, rank_ratio: recipe.rank_ratio, values: recipe.values };
  const name = `compression at rate ${recipe.rate}`;
  return { ...asked, ...await speed(recipeLayers(spec, recipe), { ...options, name }) };
}

async function speed(layers: ModelLayers, options: SpeedOptions & { readonly name: string }) {
  const bar = new ProgressBar();
  const report = await benchLayers(layers, {
    threads: options.threads,
    tuning: tuningOf(options),
    onProgress: (done, total) => bar.show({ phase: "measure", done, total }),
  });
  bar.end();
  if (report.kinds.length === 0) throw notSparse(options.name);
  return speedJson(report);
}

/** The report in plain fields. */
export function speedJson({ kinds, ...rest }: LayersReport) {
  return {
    ...rest,
    kinds: kinds.map(({ kind, batches }) => ({
      layers: kind.layers,
      shape: kind.shape,
      stored: kindName(kind),
      batches,
    })),
  };
}
export type SpeedJson = ReturnType<typeof speedJson>;

const us = (n: number): string => n < 100 ? n.toFixed(1) : n.toFixed(0);
const ratios = ({ against }: Pick<BatchSpeed, "against">): string =>
  DENSE_RIVALS.map((rival) => against[rival].toFixed(2)).join(" ");
const list = (names: readonly (LinearKind | number)[]): string => names.join(", ") || "none";

/** Ratios of best rounds hold up to about here: beyond, no round of some layers may have been left in peace. */
const DISTURBED = 1.5;

export function speedLines({ kinds, names, leave_dense, threads, disturbance }: SpeedJson): string[] {
  const heads = SPEED_BATCHES.flatMap((batch) => [`us, ${batch} tok`, "int8", "int4", "ratios"]);
  return [
    `Microseconds of a layer with ${threads} ${threads === 1 ? "thread" : "threads"}, of ${
      SPEED_BATCHES.join(", ")
    } tokens at once, stored as compression stores it and dense;`,
    "ratios say how many times faster than dense int8 and dense int4 it is.",
    "",
    ...table([
      ["layers", "shape", "S + rank", ...heads],
      ...kinds.map((k) => [
        Object.entries(k.layers).map(([name, count]) => `${count} ${name}`).join(", "),
        k.shape.join("x"),
        k.stored,
        ...k.batches.flatMap((b) => [us(b.us), us(b.dense_us.int8), us(b.dense_us.int4), ratios(b)]),
      ]),
    ]),
    "",
    ...table([
      ["layer", ...SPEED_BATCHES.map((batch) => `${batch} tok`), "faster than int8 at", "than int4 at"],
      ...names.map((n) => [n.name, ...n.batches.map(ratios), ...fasterAt(n)]),
    ]),
    "",
    ...adviceLines(leave_dense),
    ...disturbance > DISTURBED
      ? [
        `Something else kept the machine busy (median over best time ${
          disturbance.toFixed(1)
        }): measure again`,
      ]
      : [],
  ];
}

const fasterAt = ({ faster_at }: NameSpeed): string[] => DENSE_RIVALS.map((rival) => list(faster_at[rival]));

function adviceLines({ always, by_batch }: SpeedJson["leave_dense"]): string[] {
  const advice = always.length > 0
    ? `Leave dense: ${list(always)} (compress --dense ${
      always.join(",")
    }): dense int8 is faster at every batch`
    : "Leave none dense for speed: each is faster than dense int8 at some batch";
  return [
    advice,
    ...by_batch.filter(({ names }) => names.length > 0)
      .map(({ batch, names }) => `Slower than dense int8 at ${batch} tok: ${list(names)}`),
  ];
}
