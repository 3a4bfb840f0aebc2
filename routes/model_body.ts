/** A model, or one version of it, as the API shows it. */
import { z } from "@hono/zod-openapi";
import type { Adapter } from "./adapter_registry.ts";
import { adapterId } from "./model_reference.ts";
import type { Model } from "./registry.ts";

export const adapterSchema = z.object({
  name: z.string(),
  rank: z.int().openapi({ description: "Of its layers, the largest" }),
  layers: z.int().openapi({ description: "Linear layers that it changes" }),
  parameters: z.int(),
  bytes: z.int(),
  sha256: z.string(),
  base_model: z.string().nullable().openapi({ description: "What its config says it was trained on" }),
}).openapi("Adapter");

export const modelSchema = z.object({
  id: z.string(),
  object: z.literal("model"),
  version: z.string().openapi({
    description: "SHA-256 of what it holds; `id@` and 8 or more digits address it",
  }),
  created: z.int(),
  owned_by: z.string(),
  root: z.string().openapi({ description: "The model's name, without version and adapter" }),
  parent: z.string().nullable().openapi({ description: "Of `model:adapter`: the model; of models null" }),
  adapter: adapterSchema.nullable().openapi({ description: "Of `model:adapter`: the LoRA adapter" }),
  architecture: z.string(),
  context_length: z.int(),
  method: z.string(),
  rate: z.number(),
  values: z.string(),
  sparsity: z.number().openapi({ description: "Share of zeros in the sparse parts" }),
  bytes: z.int(),
  dense_bytes: z.int(),
  perplexity: z.object({ dense: z.number(), compressed: z.number(), tokens: z.int(), text: z.string() })
    .nullable(),
  versions: z.array(z.object({
    version: z.string(),
    created: z.int(),
    current: z.boolean().openapi({ description: "Is this what the model's name stands for?" }),
    method: z.string(),
    rate: z.number(),
    bytes: z.int(),
  })).openapi({ description: "All versions of the name, the current one first; of `model:adapter` none" }),
  files: z.array(z.object({ name: z.string(), bytes: z.int(), sha256: z.string().nullable() })),
}).openapi("Model");

const seconds = (ms: number): number => Math.floor(ms / 1000);

/**
 * @param id by which it was asked for
 * @param versions of its name, the current one first
 */
export function modelBody(id: string, model: Model, versions: readonly Model[]): z.infer<typeof modelSchema> {
  const { id: root, version, createdMs, info } = model;
  return {
    id,
    object: "model",
    version,
    created: seconds(createdMs),
    owned_by: "oatmill",
    root,
    parent: null,
    adapter: null,
    architecture: info.architecture,
    context_length: info.contextLength,
    method: info.method,
    rate: info.rate,
    values: info.values,
    sparsity: info.sparsity,
    bytes: info.bytes,
    dense_bytes: info.denseBytes,
    perplexity: info.perplexity,
    versions: versions.map((v, i) => ({
      version: v.version,
      created: seconds(v.createdMs),
      current: i === 0,
      method: v.info.method,
      rate: v.info.rate,
      bytes: v.info.bytes,
    })),
    files: Object.entries(info.files).map(([name, f]) => ({ name, bytes: f.bytes, sha256: f.sha256 })),
  };
}

/** A model through one of its adapters. @param body the model's, or that of one of its versions */
export function adapterBody(
  body: z.infer<typeof modelSchema>,
  { name, createdMs, info }: Adapter,
): z.infer<typeof modelSchema> {
  const { rank, layers, parameters, bytes, sha256, baseModel: base_model } = info;
  return {
    ...body,
    id: adapterId(body.id, name),
    created: seconds(createdMs),
    parent: body.id,
    adapter: { name, rank, layers, parameters, bytes, sha256, base_model },
    perplexity: null, // measured without it
    versions: [], // the model's
    files: [],
  };
}
