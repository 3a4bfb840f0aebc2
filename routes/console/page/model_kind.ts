/** What a model reads and answers, from the header that lies beside its weights. */
import { useResource } from "./resource.ts";
import type { ArtifactHeader } from "./types.ts";

export type ModelKind = "text" | "image classifier" | "text classifier" | "embeddings";

export function useModelKind(id: string | null): ModelKind | null {
  const header = useResource<ArtifactHeader & { readonly kind?: string }>(
    id === null ? null : `/v1/models/${encodeURIComponent(id)}/files/oatmill.json`,
  ).data;
  if (!header) return null;
  // A graph says what it reads by the files beside it.
  if (!header.spec) {
    return "preprocessor_config.json" in header.files ? "image classifier" : "text classifier";
  }
  const { encoder } = header.spec;
  if (!encoder) return "text";
  if (encoder.labels.length === 0) return "embeddings";
  return encoder.patches ? "image classifier" : "text classifier";
}
