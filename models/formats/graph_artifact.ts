/**
 * Artifacts of ONNX graphs: `oatmill.json` says so (`kind`), `graph.onnx` holds the graph with `Linear` nodes, and
 * `model.safetensors` their layers: `layer.I.w`, or `.s` (and `.v`, `.u`), and `group.G.scale` for what reads one value
 * (models/onnx/segments.ts). Beside them lie the files that the source came with.
 */
import { join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { TokenizerFiles } from "../checkpoint.ts";
import { readTokenizerFiles } from "../tokenizer_files.ts";
import { openStored, readHeader, type StoredFolder, storedSchema } from "./artifact.ts";
import type { ArtifactHeader } from "./artifact_header.ts";
import { readJsonFile } from "./json_file.ts";
import type { SentencePooling } from "./sentence_pooling.ts";

export const GRAPH_KIND = "onnx_graph";
export const GRAPH_FILE = "graph.onnx";
/** Files of the source that are kept as they are: names of labels, how images become pixels. */
export const CONFIG_FILE = "config.json";
export const PROCESSOR_FILE = "preprocessor_config.json";

/** What the compressed graph answers, compared with the graph as it came. */
export interface GraphAgreement {
  /** Inputs that were compared, not used for calibration where there were enough. */
  readonly inputs: number;
  readonly text: string;
  /** For each output of floats: |y - y'| / |y|, and the largest |y - y'|. */
  readonly outputs: readonly { readonly name: string; readonly error: number; readonly largest: number }[];
  /** Share of rows of the logits whose largest is the same; null without logits. */
  readonly sameLabel: number | null;
}

export interface GraphHeader extends Omit<ArtifactHeader, "spec" | "perplexity"> {
  readonly kind: typeof GRAPH_KIND;
  /** A graph is measured by its agreement. */
  readonly perplexity: null;
  readonly agreement: GraphAgreement | null;
  /** How hidden states become one vector, where the source says so; absent or null: the first stands for all. */
  readonly pooling?: SentencePooling | null;
}

/** Of an artifact of either kind. */
export type AnyHeader = ArtifactHeader | GraphHeader;

/** A graph's artifact folder, opened. */
export interface GraphArtifact extends StoredFolder {
  readonly header: GraphHeader;
  /** `graph.onnx` */
  readonly graph: Uint8Array<ArrayBuffer>;
  /** Null where the source had none. */
  readonly config: Readonly<Record<string, unknown>> | null;
  readonly imageProcessor: Readonly<Record<string, unknown>> | null;
  readonly tokenizerFiles: TokenizerFiles | null;
}

const graphSchema = storedSchema.extend({
  kind: z.literal(GRAPH_KIND),
  pooling: z.object({ pooling: z.enum(["cls", "mean"]), unitLength: z.boolean() }).nullish(),
});

/** Does this artifact folder hold a graph? @throws {OatmillError} invalid_artifact when its header cannot be read */
export const isGraphArtifact = async (dir: string): Promise<boolean> =>
  (await readHeader(dir) as { readonly kind?: unknown } | null)?.kind === GRAPH_KIND;

/** @throws {OatmillError} invalid_artifact */
export async function openGraphArtifact(dir: string): Promise<GraphArtifact> {
  const { json, ...stored } = await openStored(dir, graphSchema);
  const header = json as GraphHeader; // checked as far as the loader relies on it
  if (!header.files[GRAPH_FILE]) {
    throw new OatmillError("invalid_artifact", `Cannot open artifact "${dir}": ${GRAPH_FILE} is missing`);
  }
  const optional = (name: string) =>
    header.files[name] ? readJsonFile(join(dir, name), "invalid_artifact") : Promise.resolve(null);
  return {
    ...stored,
    json,
    header,
    graph: await Deno.readFile(join(dir, GRAPH_FILE)),
    config: await optional(CONFIG_FILE),
    imageProcessor: await optional(PROCESSOR_FILE),
    tokenizerFiles: header.files["tokenizer.json"] ? await readTokenizerFiles(dir) : null,
  };
}
