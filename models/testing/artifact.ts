/** The bundled model as an artifact. Tests only. */
import { ArtifactWriter } from "../formats/artifact_writer.ts";
import { openCheckpoint } from "../open.ts";
import { packDense, packDenseTensor } from "../pack_dense.ts";
import { recipeSchema } from "../recipe.ts";

export const DEFAULT_MODEL = new URL("../default/", import.meta.url).pathname;

/** Writes the bundled model, dense int8, as an artifact. */
export async function writeArtifact(dir: string): Promise<void> {
  const checkpoint = await openCheckpoint(DEFAULT_MODEL);
  const model = packDense(checkpoint, { values: "int8" });
  const writer = await ArtifactWriter.create(dir, { maxTensors: model.tensors.length });
  for (const t of model.tensors) {
    const { data } = await checkpoint.read(
      t.name.replace(/\.w$/, "") as Parameters<typeof checkpoint.read>[0],
    );
    await writer.add(t.name, t.format, t.shape, packDenseTensor(data, t.shape, t.format));
  }
  await writer.finish({
    oatmill: "test",
    created: "2026-01-01T00:00:00Z",
    name: "test",
    spec: checkpoint.spec,
    recipe: recipeSchema.parse({ method: "none" }),
    source: { file: "default", format: checkpoint.format, tensorBytes: checkpoint.tensorBytes },
    blockChunks: model.blockChunks,
    layers: [],
    perplexity: null,
    denseBytes: 0,
  }, checkpoint.tokenizerFiles);
  checkpoint.close();
}
