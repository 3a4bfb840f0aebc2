/** `export`: a model in a form that other programs open. */
import { exportModel, type ExportOptions } from "../export/export.ts";
import type { ExportType } from "../export/formats.ts";
import { megabytes, printResult, ProgressBar } from "./output.ts";

export interface ExportCommandOptions extends Omit<ExportOptions, "model" | "type" | "onProgress"> {
  readonly dtype?: ExportType;
  readonly json?: boolean;
}

export async function exportCommand(model: string, options: ExportCommandOptions): Promise<void> {
  const { dtype: type, json, ...rest } = options, bar = new ProgressBar();
  const onProgress = (done: number, total: number) => bar.show({ phase: "export", done, total });
  const result = await exportModel({ ...rest, model, type, onProgress });
  bar.end();
  printResult(result, {
    json,
    lines: () => [
      `${result.format.padEnd(12)} ${result.out}`,
      `tensors      ${megabytes(result.bytes)} in ${result.type}, ${result.files.length} files`,
      ...result.rest === undefined ? [] : [
        `adapter      ${result.modules} modules, rank ${result.rank} at most`,
        `left out     ${(100 * result.rest).toFixed(2)} % of the change (its norm)`,
      ],
    ],
  });
}
