/** `inspect --insight`: what is known of each layer of a model, measured or as it was stored, as tables. */
import { isAbsolute, join } from "node:path";
import { OatmillError } from "../errors.ts";
import type { Artifact } from "../models/formats/artifact.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { type Insight, INSIGHT_FILE, readInsight, storeInsight } from "../models/formats/insight_file.ts";
import { SOURCE_NOTE } from "./source_note.ts";
import { layerFigures } from "./report/figures.ts";
import { note, ProgressBar, table } from "./output.ts";

export interface InsightOptions {
  readonly insight?: boolean;
  /** The dense model behind an artifact. */
  readonly source?: string;
  readonly calibration?: string;
  readonly sequences?: number;
  readonly length?: number;
  readonly seed?: number;
  readonly threads?: number;
}

/** Outlier ratios above 0.1 % are within 2 % of those of 128 sequences (the bundled model, M up to 7). */
const SEQUENCES = 16, LENGTH = 512;

/** Of a model that is no artifact: measured when asked for. */
export const checkpointInsight = async (path: string, options: InsightOptions): Promise<Insight | null> =>
  options.insight ? await measure(path, null, options) : null;

/**
 * An artifact's: as it was stored, or measured anew and then stored.
 * @throws {OatmillError} invalid_request when nothing could be measured that is not known
 */
export async function artifactInsight(artifact: Artifact, options: InsightOptions): Promise<Insight | null> {
  if (!options.insight) return await readInsight(artifact);
  const source = options.source ?? await noted(artifact.path);
  if (source === null) {
    if (artifact.header.files[INSIGHT_FILE]) {
      throw new OatmillError(
        "invalid_request",
        `Cannot measure "${artifact.path}" anew: where its dense model lies is not known, give --source`,
      );
    }
    note("Only what packed weights tell: where the dense model lies is not known (--source)");
  }
  const insight = await measure(source, artifact, options);
  await storeInsight(artifact.path, artifact.header, insight)
    .catch((error) => note(`Not stored: ${error.message}`)); // a folder that cannot be written can still be looked at
  return insight;
}

/** Where the artifact's source lay when it was made here, if it is still there. */
async function noted(dir: string): Promise<string | null> {
  const path = (await Deno.readTextFile(join(dir, SOURCE_NOTE)).catch(() => "")).trim();
  const there = isAbsolute(path) && await Deno.stat(path).then(() => true, () => false);
  return there ? path : null;
}

async function measure(
  source: string | null,
  artifact: Artifact | null,
  options: InsightOptions,
): Promise<Insight> {
  const { measureInsight } = await import("../compress/insight/measure.ts"); // inspect alone stays instant
  const bar = new ProgressBar();
  const abort = new AbortController(), stop = () => abort.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    return await measureInsight({
      source,
      artifact,
      calibration: {
        text: options.calibration ?? "self",
        sequences: options.sequences ?? SEQUENCES,
        length: options.length ?? LENGTH,
        seed: options.seed ?? 0,
      },
      threads: options.threads,
      signal: abort.signal,
      onProgress: (p) => bar.show(p),
    });
  } finally {
    bar.end();
    Deno.removeSignalListener("SIGINT", stop);
  }
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

/** Tables of blocks and of the inputs that have outlier columns. The layers' stand in {@linkcode layerTable}. */
export function insightLines({ calibration, multiples, blocks, inputs }: Insight): string[] {
  if (!calibration) return [];
  const loud = inputs.filter((input) => input.outlierCount > 0);
  return [
    `Outlier ratios: share of |W| d above M times the block's mean (${calibration.sequences} sequences of ${calibration.length} tokens, ${calibration.text})`,
    ...table([
      ["block", ...multiples.map((m) => `M = ${m}`)],
      ...blocks.map(({ outliers }, i) => [i, ...outliers?.map(percent) ?? multiples.map(() => null)]),
    ]),
    ...loud.length === 0 ? [] : [
      "",
      "Inputs with columns above 6 times the median",
      ...table([
        ["input", "columns", "above", "column x median"],
        ...loud.map((input) => [
          input.name,
          input.columns,
          input.outlierCount,
          input.outlierColumns.map(({ column, ratio }) => `${column} x ${ratio.toFixed(1)}`).join(", "),
        ]),
      ]),
    ],
  ];
}

/** One row for each layer: what compression did, and what was measured. */
export function layerTable(header: ArtifactHeader | null, insight: Insight | null): string[] {
  const layers = layerFigures(header, insight);
  const columns = LAYER_COLUMNS.filter(({ of }) => layers.some((layer) => of(layer) !== null));
  if (layers.length === 0) return [];
  return table([
    ["layer", ...columns.map(({ head }) => head)],
    ...layers.map((layer) => [layer.name, ...columns.map(({ of }) => of(layer))]),
  ]);
}

type Figures = ReturnType<typeof layerFigures>[number];
const LAYER_COLUMNS: readonly { head: string; of: (layer: Figures) => string | number | null }[] = [
  { head: "rate", of: (l) => l.rate },
  { head: "rank", of: (l) => l.rank },
  { head: "kept", of: (l) => l.kept },
  { head: "bits", of: (l) => l.bits },
  { head: "values", of: (l) => l.values },
  { head: "bytes", of: (l) => l.bytes },
  { head: "error", of: (l) => l.error },
  { head: "output error", of: (l) => l.inputError },
  { head: "outliers M=5", of: (l) => l.outliers && percent(l.outliers[1]) },
  { head: "eff. rank", of: (l) => l.effectiveRank },
  { head: "energy of rank", of: (l) => l.energyOfRank },
  { head: "places filled", of: (l) => l.filled },
];
