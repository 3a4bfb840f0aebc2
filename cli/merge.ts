/** `merge`: a LoRA adapter into an artifact's L. */
import { basename, resolve } from "node:path";
import { mergeAdapter } from "../compress/merge_adapter.ts";
import { OatmillError } from "../errors.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import { readAdapter } from "../models/peft/read_adapter.ts";
import { megabytes, printResult, ProgressBar } from "./output.ts";

export interface MergeCommandOptions {
  readonly adapter: string;
  readonly out: string;
  readonly name?: string;
  readonly json?: boolean;
}

export async function mergeCommand(model: string, options: MergeCommandOptions): Promise<void> {
  const { adapter: folder, out, name, json } = options;
  if (!await isArtifact(model)) {
    throw new OatmillError(
      "invalid_request",
      `Cannot merge an adapter into "${model}": it is no artifact; compress it first (--method none leaves it dense)`,
    );
  }
  const artifact = await openArtifact(model);
  const adapter = await readAdapter(folder, { spec: artifact.spec, name: artifact.name });
  const bar = new ProgressBar();
  const header = await mergeAdapter(artifact, adapter, {
    out,
    name: name ?? basename(out),
    adapterName: basename(resolve(folder)),
    onProgress: (done, total) => bar.show({ phase: "merge", done, total }),
  });
  bar.end();
  const result = {
    out,
    layers: adapter.layers.size,
    rank: adapter.rank,
    parameters: adapter.parameters,
    base_model: adapter.baseModel,
    bytes: header.bytes,
    bytes_before: artifact.header.bytes,
  };
  printResult(result, {
    json,
    lines: () => [
      `artifact     ${out}`,
      `adapter      rank ${result.rank} on ${result.layers} layers, trained on ${result.base_model ?? "?"}`,
      `tensors      ${megabytes(result.bytes)}, ${megabytes(result.bytes_before)} before`,
    ],
  });
}
