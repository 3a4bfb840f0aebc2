/** What is kept of an artifact's header in the database. */
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import type { AnyHeader } from "../models/formats/graph_artifact.ts";

/** Enough to list models without opening them. */
export interface ModelInfo {
  readonly architecture: string;
  readonly contextLength: number;
  readonly bytes: number;
  readonly denseBytes: number;
  readonly method: string;
  readonly rate: number;
  readonly values: string;
  readonly sparsity: number;
  readonly perplexity: ArtifactHeader["perplexity"];
  /** Name -> size and SHA-256 of what may be downloaded. */
  readonly files: ArtifactHeader["files"];
}

/** What graphs are listed as. */
const GRAPH_INFO = { architecture: "ONNX", contextLength: 0 } as const;

export function modelInfo(header: AnyHeader): ModelInfo {
  const weights = header.layers.map((l) => l.shape[0] * l.shape[1]);
  const kept = header.layers.reduce((sum, l, i) => sum + l.kept * weights[i], 0);
  const all = weights.reduce((a, b) => a + b, 0);
  const { architecture, contextLength } = "spec" in header ? header.spec : GRAPH_INFO;
  return {
    architecture,
    contextLength,
    bytes: header.bytes,
    denseBytes: header.denseBytes,
    method: header.recipe.method,
    rate: header.recipe.rate,
    values: header.recipe.values,
    sparsity: all === 0 ? 0 : 1 - kept / all,
    perplexity: header.perplexity,
    files: header.files,
  };
}
