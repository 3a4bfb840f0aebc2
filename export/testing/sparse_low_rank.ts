/** Artifacts of any checkpoint in milliseconds: every second weight is S, L is small and random. Tests only. */
import { join } from "node:path";
import type { Checkpoint, TokenizerFiles, WeightRole } from "../../models/checkpoint.ts";
import { ArtifactWriter } from "../../models/formats/artifact_writer.ts";
import { encodeSourceConfig, SOURCE_CONFIG_FILE } from "../../models/formats/source_config.ts";
import { openCheckpoint } from "../../models/open.ts";
import { packDense, packDenseTensor } from "../../models/pack_dense.ts";
import { recipeSchema } from "../../models/recipe.ts";

const F32 = { kind: "f32" } as const, VECTOR = { kind: "vector" } as const;
const RANK = 3;

/** Numbers that look random, of size 1. */
const wave = (length: number, seed: number): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length }, (_, i) => Math.sin(12.9898 * (i + 1) + 78.233 * seed));

/** Writes the checkpoint as S + U V in f32, half of the inputs with scales; the engine serves that exactly. */
async function writeSparseLowRank(
  checkpoint: Checkpoint,
  dir: string,
  tokenizer: TokenizerFiles | null,
): Promise<void> {
  const { tensors, blockChunks } = packDense(checkpoint, { values: "f32" });
  const writer = await ArtifactWriter.create(dir, { maxTensors: 4 * tensors.length });
  const add = (name: string, shape: readonly number[], data: Float32Array) => {
    const format = shape.length === 1 ? VECTOR : F32;
    return writer.add(name, format, shape, packDenseTensor(data, shape, format));
  };
  for (const [i, { name, shape }] of tensors.entries()) {
    const role = name.replace(/\.w$/, "") as WeightRole, { data } = await checkpoint.read(role);
    if (name === role) {
      await add(name, shape, data);
      continue;
    }
    const [dOut, dIn] = shape;
    await add(`${role}.s`, shape, data.map((value, at) => (at + i) % 2 ? 1.5 * value : 0));
    await add(`${role}.v`, [RANK, dIn], wave(RANK * dIn, i));
    await add(`${role}.u`, [dOut, RANK], wave(dOut * RANK, i + 0.5).map((value) => 0.03 * value));
  }
  for (let block = 0; block < checkpoint.spec.blocks; block += 2) {
    const width = checkpoint.spec.hiddenSize;
    await add(`block.${block}.mlp.scale`, [width], wave(width, block).map((value) => 1 + value / 4));
  }
  if (checkpoint.sourceConfig) {
    await writer.addFile(SOURCE_CONFIG_FILE, encodeSourceConfig(checkpoint.sourceConfig));
  }
  await writer.finish({
    oatmill: "test",
    created: "2026-01-01T00:00:00Z",
    name: "test",
    spec: checkpoint.spec,
    recipe: recipeSchema.parse({ method: "none" }),
    source: { file: "source", format: checkpoint.format, tensorBytes: checkpoint.tensorBytes },
    blockChunks,
    layers: [],
    perplexity: null,
    denseBytes: 0,
  }, tokenizer);
}

/** Runs with a new folder, which is gone afterwards. */
export async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * @param tokenizer of models that have none
 * @returns the path of a new artifact in `folder`
 */
export async function writeArtifactOf(
  source: string,
  folder: string,
  tokenizer?: (checkpoint: Checkpoint) => TokenizerFiles,
): Promise<string> {
  const checkpoint = await openCheckpoint(source), artifact = join(folder, "artifact");
  await writeSparseLowRank(
    checkpoint,
    artifact,
    checkpoint.tokenizerFiles ?? tokenizer?.(checkpoint) ?? null,
  );
  checkpoint.close();
  return artifact;
}
