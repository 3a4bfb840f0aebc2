/**
 * `insight.json`: what was measured of a model's layers, for people to look at. It lies beside an artifact's weights and
 * is listed in `header.files`; nothing that serves a model reads it, and an artifact without it is whole.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { Artifact } from "./artifact.ts";
import { updateHeader } from "./artifact_writer.ts";
import type { ArtifactHeader } from "./artifact_header.ts";

export const INSIGHT_FILE = "insight.json";
const VERSION = 1;
/** Of an 80-block model it has 1.5 MB. */
const MAX_BYTES = 64 << 20;

/** OWL's M: scores above M times the mean count as outliers. The paper's plots show these four. */
export const OUTLIER_MULTIPLES = [3, 5, 7, 10] as const;
/** Singular values are told at this many even steps from the largest (0) to the smallest (1). */
export const SPECTRUM_STEPS = 32;
/** Of the short side: up to where the energy of the largest singular values is told. */
export const ENERGY_SHARES = [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2] as const;
/** Bins of log2(d_j / median d). What lies outside counts in the outermost bin. */
export const SCALE_BINS = { from: -8, to: 8, count: 32 } as const;
/** Bins of the share of places in use, from 0 to 1. */
export const FILL_BINS = 20;

const share = z.number().min(0).max(1);
const count = z.int().nonnegative();
const outliers = z.array(share).length(OUTLIER_MULTIPLES.length);

const spectrumSchema = z.strictObject({
  method: z.enum(["exact", "sketch"]),
  /** σ₁, the largest. */
  largest: z.number().nonnegative(),
  /** σ / σ₁ at the SPECTRUM_STEPS + 1 steps, falling. */
  quantiles: z.array(share).length(SPECTRUM_STEPS + 1),
  /** exp of the entropy of σ² / Σ σ² (Roy and Vetterli 2007): about how many directions share the energy. */
  effectiveRank: z.number().nonnegative(),
  /** Share of Σ σ² in the largest singular values, up to each of ENERGY_SHARES of their number. */
  energy: z.array(share).length(ENERGY_SHARES.length),
  /** The same in as many as L has columns; null without L. */
  energyOfRank: share.nullable(),
});

const windowsSchema = z.strictObject({
  /** Places for entries of S, and those that hold a value other than 0. */
  places: count,
  filled: count,
  /** For each kind of window: how many windows (of a row) have 0, 1, ... `capacity` places filled. */
  kinds: z.array(z.strictObject({ view: z.enum(["A", "B"]), capacity: count, windows: z.array(count) })),
  /** Rows' activation blocks by the share of their places that is filled. */
  blocks: z.array(count).length(FILL_BINS),
});

const layerSchema = z.strictObject({
  /** `block.I.NAME` */
  name: z.string(),
  /** Share of this layer's scores |W| d above M times their mean; null without inputs. */
  outliers: outliers.nullable(),
  /** tr(E H E') / tr(W H W') with E = W - S - L as stored: what the layer's outputs lose. Null where H is unknown. */
  inputError: z.number().nonnegative().nullable(),
  /** Of W diag(d), which methods work on. */
  scaled: spectrumSchema.nullable(),
  /** Of W. */
  plain: spectrumSchema.nullable(),
  /** Null when S is not stored in windows. */
  windows: windowsSchema.nullable(),
});

const inputSchema = z.strictObject({
  /** `block.I.INPUT` */
  name: z.string(),
  columns: count,
  /** Columns that are always 0. */
  dead: count,
  /** Root mean square of all. */
  rms: z.number().nonnegative(),
  /** Of the columns' root mean squares that are not 0. */
  median: z.number().nonnegative(),
  /** Columns by log2(d_j / median), SCALE_BINS. */
  histogram: z.array(count).length(SCALE_BINS.count),
  /** Outlier columns, and the largest of them. */
  outlierCount: count,
  outlierColumns: z.array(z.strictObject({ column: count, ratio: z.number().positive() })),
});

export const insightSchema = z.strictObject({
  version: z.literal(VERSION),
  /** What the inputs come from; null when there were none. */
  calibration: z.strictObject({ text: z.string(), sequences: count, length: count }).nullable(),
  multiples: z.array(z.number()).length(OUTLIER_MULTIPLES.length),
  /** OWL's layerwise outlier distribution: all linear layers of each block together. */
  blocks: z.array(z.strictObject({ outliers: outliers.nullable() })),
  inputs: z.array(inputSchema),
  layers: z.array(layerSchema),
});

export type Insight = z.infer<typeof insightSchema>;
export type LayerInsight = Insight["layers"][number];
export type InputInsight = Insight["inputs"][number];
export type Spectrum = z.infer<typeof spectrumSchema>;
export type WindowOccupancy = z.infer<typeof windowsSchema>;

export const newInsight = (parts: Omit<Insight, "version" | "multiples">): Insight => ({
  version: VERSION,
  multiples: [...OUTLIER_MULTIPLES],
  ...parts,
});

/** Five digits are more than anybody reads: half the bytes. */
export function encodeInsight(insight: Insight): Uint8Array<ArrayBuffer> {
  const short = (_: string, v: unknown) =>
    typeof v === "number" && !Number.isInteger(v) ? Number(v.toPrecision(5)) : v;
  return new TextEncoder().encode(JSON.stringify(insight, short));
}

/**
 * The insight that was stored with an artifact, or null. `openArtifact()` has checked the file's hash.
 * @throws {OatmillError} invalid_artifact when the file is none of this version
 */
export async function readInsight(
  { path, header }: Pick<Artifact, "path" | "header">,
): Promise<Insight | null> {
  const file = header.files[INSIGHT_FILE];
  if (!file) return null;
  const bad = (why: string, cause?: unknown) =>
    new OatmillError(
      "invalid_artifact",
      `Cannot read "${join(path, INSIGHT_FILE)}": ${why}; inspect --insight measures it anew`,
      null,
      { cause },
    );
  if (file.bytes > MAX_BYTES) throw bad(`it has ${file.bytes} bytes, at most ${MAX_BYTES} are read`);
  let json: unknown;
  try {
    json = JSON.parse(await Deno.readTextFile(join(path, INSIGHT_FILE)));
  } catch (cause) {
    throw bad("it is not JSON", cause);
  }
  const parsed = insightSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw bad(`${issue.path.join(".")}: ${issue.message}`);
}

/**
 * Stores or replaces the insight of a finished artifact. The header names the file only while it lies there whole, so
 * that an artifact can be opened at every moment.
 * @throws {OatmillError} storage_failed
 */
export async function storeInsight(
  dir: string,
  header: ArtifactHeader,
  insight: Insight,
): Promise<ArtifactHeader> {
  const { [INSIGHT_FILE]: old, ...files } = header.files;
  if (old) await updateHeader(dir, { ...header, files });
  const bytes = encodeInsight(insight);
  await Deno.writeFile(join(dir, INSIGHT_FILE), bytes).catch((cause) => {
    throw new OatmillError(
      "storage_failed",
      `Cannot write "${join(dir, INSIGHT_FILE)}": ${cause.message}`,
      null,
      {
        cause,
      },
    );
  });
  const entry = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
  const next = { ...header, files: { ...files, [INSIGHT_FILE]: entry } };
  await updateHeader(dir, next);
  return next;
}
