/** Plans of loads from plain data, which can be sent to a worker or stand in a request: what the command line and a server share. */
import { OatmillError } from "../../errors.ts";
import { type Endpoint, isChat, type Target } from "./client.ts";
import type { DatasetRow } from "./dataset.ts";
import { type Lengths, LENGTHS_SYNTAX, parseLengths } from "./lengths.ts";
import type { ClosedLoad, LoadLimit, LoadPlan, OpenLoad } from "./load.ts";
import { DEFAULT_SCALE, serverModels, wordScale } from "./probe.ts";
import { datasetPrompts, type SharedPrefix, syntheticPrompts, type WordScale } from "./prompts.ts";
import type { Slo } from "./slo.ts";

export interface TargetSpec extends Omit<Target, "endpoint" | "model"> {
  /** Default: chat for a dataset of messages alone, else completions. */
  readonly endpoint?: Endpoint;
  /** Default: the first that the server lists. */
  readonly model?: string;
}
export interface LoadSpec {
  readonly load: OpenLoad | ClosedLoad;
  readonly limit: LoadLimit;
  readonly warmup: LoadLimit | null;
  readonly slo: Slo;
  readonly seed: number;
  /** As {@linkcode parseLengths} reads them; of a dataset's prompts the input has no say. */
  readonly inputTokens: string;
  /** Null: what the dataset or the server says. */
  readonly outputTokens: string | null;
  readonly sharedPrefix: SharedPrefix | null;
}
export interface OpenedTarget {
  readonly target: Target;
  /** What the server counts for our words. */
  readonly scale: WordScale;
  /** The server gives usage: the scale is measured, tokens are counted exactly. */
  readonly counted: boolean;
}

/**
 * Finds the model and what its words cost: one or two small requests.
 * @param rows of the dataset that will be sent, if one will
 * @throws {OatmillError} unavailable, model_not_found
 */
export async function openTarget(
  spec: TargetSpec,
  rows: readonly DatasetRow[] | null = null,
  signal?: AbortSignal,
): Promise<OpenedTarget> {
  const model = spec.model ?? (await serverModels(spec.baseUrl, spec.apiKey, signal))[0];
  if (model === undefined) {
    throw new OatmillError("model_not_found", `${spec.baseUrl} lists no models; name one`);
  }
  const endpoint = spec.endpoint ?? (rows?.every((row) => isChat(row.prompt)) ? "chat" : "completions");
  const target = { ...spec, model, endpoint };
  const scale = await wordScale(target, signal);
  return { target, scale: scale ?? DEFAULT_SCALE, counted: scale !== null };
}

/** @throws {OatmillError} invalid_request: lengths that are none */
export function loadPlan(
  { target, scale }: OpenedTarget,
  spec: LoadSpec,
  rows: readonly DatasetRow[] | null = null,
): LoadPlan {
  const { inputTokens, outputTokens, sharedPrefix, ...plan } = spec;
  const output = outputTokens === null ? null : lengths(outputTokens);
  const prompts = { output, sharedPrefix, scale, seed: spec.seed };
  return {
    ...plan,
    target,
    prompts: rows ? datasetPrompts(rows, prompts) : syntheticPrompts(lengths(inputTokens), prompts),
  };
}

function lengths(text: string): Lengths {
  const parsed = parseLengths(text);
  if (parsed) return parsed;
  throw new OatmillError(
    "invalid_request",
    `"${text}" is no number of tokens and no distribution, ${LENGTHS_SYNTAX}`,
  );
}
