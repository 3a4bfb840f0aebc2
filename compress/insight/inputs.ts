/** How evenly the columns of a layer's input are scaled, and which stand out. */
import { type InputInsight, SCALE_BINS } from "../../models/formats/insight_file.ts";

/** Columns above this times the median count as outliers. (LLM.int8's emergent features have six times the usual size.) */
const OUTLIER_RATIO = 6;
/** As many of them are named. */
const NAMED_COLUMNS = 8;

/** @param rms `[dIn]` root mean square of each column */
export function inputInsight(name: string, rms: Float32Array): InputInsight {
  const alive = Float64Array.from(rms).filter((x) => x > 0).sort();
  const median = alive[alive.length >> 1] ?? 0;
  const histogram = new Array<number>(SCALE_BINS.count).fill(0);
  for (const x of alive) histogram[scaleBin(x / median)]++;
  const outlierColumns = Array.from(rms, (x, column) => ({ column, ratio: median > 0 ? x / median : 0 }))
    .filter(({ ratio }) => ratio > OUTLIER_RATIO)
    .sort((a, b) => b.ratio - a.ratio);
  return {
    name,
    columns: rms.length,
    dead: rms.length - alive.length,
    rms: Math.sqrt(alive.reduce((sum, x) => sum + x * x, 0) / rms.length),
    median,
    histogram,
    outlierCount: outlierColumns.length,
    outlierColumns: outlierColumns.slice(0, NAMED_COLUMNS),
  };
}

function scaleBin(ratio: number): number {
  const { from, to, count } = SCALE_BINS;
  return Math.min(count - 1, Math.max(0, Math.floor((Math.log2(ratio) - from) / (to - from) * count)));
}
