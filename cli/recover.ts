/** `recover`: trains what compression left of a model towards the dense one, into a new artifact. */
import { recoverArtifact } from "../compress/recovery/recover_artifact.ts";
import { type RunFlags, runInFolder } from "./compress_run.ts";
import { compressReport, reportLines } from "./compress.ts";
import { printResult } from "./output.ts";
import { type RecoverFlags, recoverOf } from "./recovery_report.ts";

export interface RecoverCommandOptions extends RunFlags, RecoverFlags {
  readonly source: string;
  readonly name?: string;
  readonly evaluate?: string;
  readonly evaluateTokens?: number;
  readonly json?: boolean;
}

export async function recoverCommand(artifact: string, options: RecoverCommandOptions): Promise<void> {
  const { source, name, evaluate: text, evaluateTokens: tokens, json } = options;
  const result = await runInFolder(source, options, (run) =>
    recoverArtifact({
      ...run,
      name,
      artifact,
      recover: recoverOf(undefined, options) ?? {},
      evaluate: { ...text === undefined ? {} : { text }, ...tokens === undefined ? {} : { tokens } },
    }));
  const report = compressReport(result);
  printResult(report, { json, lines: () => reportLines(report, result) });
}
