/** `bench compress MODEL`: the table of methods and rates. */
import { fileURLToPath } from "node:url";
import { benchCompress, type BenchCompressReport } from "../bench/compress.ts";
import { COMPRESS_ROW_NAMES, type CompressRowName } from "../bench/compress_rows.ts";
import { OatmillError } from "../errors.ts";
import { megabytes, printResult, ProgressBar, table } from "./output.ts";

/** The bundled model: what there is to measure everywhere. */
const BUNDLED = fileURLToPath(new URL("../models/default/", import.meta.url));

export interface BenchCompressRowsOptions {
  /** Parts of rows' names, as in `oatmill,dense`; all rows when none is given. */
  readonly rows?: string[];
  readonly calibration?: string;
  readonly sequences: number;
  readonly length: number;
  readonly evaluate?: string;
  readonly tokens: number;
  readonly results: string;
  readonly keep?: boolean;
  readonly threads?: number;
  readonly json?: boolean;
}

export async function benchCompressRowsCommand(
  source: string | undefined,
  options: BenchCompressRowsOptions,
): Promise<void> {
  const { calibration, sequences, length, evaluate, tokens, results, keep, threads } = options;
  const bar = new ProgressBar();
  const report = await benchCompress({
    source: source ?? BUNDLED,
    rows: rowsNamed(options.rows),
    calibration: { text: calibration ?? "self", sequences, length },
    evaluate: { text: evaluate ?? null, tokens },
    folder: results,
    keep,
    threads,
    onProgress: (done, total, row) => bar.show({ phase: row || "done", done, total }),
  });
  bar.end();
  printResult(report, { json: options.json, lines: () => compressTable(report) });
}

/** Rows of these names, and for what is no name those that contain it, in the order asked for. @throws {OatmillError} invalid_request: a part that no row has */
export function rowsNamed(parts: readonly string[] | undefined): CompressRowName[] {
  if (!parts) return COMPRESS_ROW_NAMES;
  const unknown = parts.find((part) => !COMPRESS_ROW_NAMES.some((name) => name.includes(part)));
  if (unknown !== undefined) {
    throw new OatmillError(
      "invalid_request",
      `Cannot find rows "${unknown}": there are ${COMPRESS_ROW_NAMES.map((name) => `"${name}"`).join(", ")}`,
    );
  }
  const names = new Set<string>(COMPRESS_ROW_NAMES);
  const fits = (name: string, part: string) => names.has(part) ? name === part : name.includes(part);
  return [...new Set(parts.flatMap((part) => COMPRESS_ROW_NAMES.filter((name) => fits(name, part))))];
}

function compressTable({ source, tokens, rows }: BenchCompressReport): string[] {
  return [
    `${source}, perplexity over ${tokens} tokens (dense f32: ${rows[0]?.dense_perplexity.toFixed(2) ?? "-"})`,
    ...table([
      ["row", "perplexity", "seconds", "peak memory", "size"],
      ...rows.map((r) => [
        r.name,
        r.perplexity,
        r.seconds,
        megabytes(r.peak_rss_bytes),
        megabytes(r.bytes),
      ]),
    ]),
  ];
}
